"""LLaVAs of a given shape with random weights, and prompts for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rvelens.speed.memory import check_room

PromptTensors = dict[str, Tensor]
IMAGE_TOKEN = 32000


@dataclass(frozen=True)
class Shape:
    """A LLaVA with random weights.

    Attributes:
        layers, width, heads, mlp: of the language model.
        vision_layers, vision_width: of the CLIP tower, 24 x 24 patches of 14 pixels.
        dtype: of weights.
        text_tokens: of the prompt, beside the 576 image tokens.
    """

    layers: int
    width: int
    heads: int
    mlp: int
    vision_layers: int
    vision_width: int
    dtype: torch.dtype
    text_tokens: int = 44

    @property
    def gib(self) -> float:
        """Size of the weights of the language model, in GiB."""
        per_layer = 4 * self.width**2 + 3 * self.width * self.mlp
        n = self.layers * per_layer + 2 * (IMAGE_TOKEN + 64) * self.width
        return n * self.dtype.itemsize / 2**30


# By the names that `rvelens bench --shape` takes.
SHAPES = {
    "tiny": Shape(8, 768, 12, 2048, 2, 256, torch.float32),
    "llava-1.5-7b": Shape(32, 4096, 32, 11008, 24, 1024, torch.bfloat16),
}


def _config_of(shape: Shape) -> LlavaConfig:
    """The configuration of a LLaVA-1.5 of this shape."""
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_width // 64,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=IMAGE_TOKEN + 64,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=4096,
        eos_token_id=None,
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_TOKEN,  # type: ignore[call-arg]  # an alias that its class declares
        dtype=shape.dtype,
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    return config


def build_random(shape: Shape, device: str) -> PreTrainedModel:
    """A LLaVA of this shape with random weights; generations run to their full length.

    Raises:
        ValueError: no such device, or not enough memory on it.
    """
    # Half as much again for the vision tower, activations and caches.
    check_room(1.5 * shape.gib, device)
    torch.manual_seed(0)
    with torch.device(device):
        return LlavaForConditionalGeneration._from_config(
            _config_of(shape), dtype=shape.dtype, attn_implementation="sdpa"
        ).eval()


def prompt_of(model: PreTrainedModel, text_tokens: int, images: int = 1) -> PromptTensors:
    """One random prompt: for each image its 576 tokens and `text_tokens` of text around them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(10, IMAGE_TOKEN, (images, 576 + text_tokens), generator=generator)
    ids[:, 4:580] = IMAGE_TOKEN
    ids = ids.reshape(1, -1)
    pixels = torch.randn(images, 3, 336, 336, generator=generator)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
    }


def processor_of() -> LlavaProcessor:
    """A processor for these models: pictures of 336 pixels, and words "w10", "w11", ... as tokens."""
    words = {f"w{n}": n for n in range(IMAGE_TOKEN + 64)}
    special = {"<image>": IMAGE_TOKEN, "<unk>": 0}
    vocabulary = {w: n for w, n in words.items() if n not in special.values()} | special
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    return LlavaProcessor(images, fast, 14, "default", num_additional_image_tokens=1)
