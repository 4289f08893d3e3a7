"""Tiny random models of every family: real configuration classes, real processors, no network.

Weights are drawn so that attention scores have a spread of a few units: with the default
initialisation they would all be near zero and an edit of them would change nothing.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
import transformers as tf
from tiny_inputs import (
    IMAGES,
    N_VOCAB,
    QUESTIONS,
    SPECIAL_IDS,
    TEXT,
    VISION,
    VOCAB,
    tokenizer,
    without_video,
)
from tiny_qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

__all__ = ["FAMILIES", "IMAGES", "QUESTIONS", "build"]


def llava() -> tuple[Any, Any]:
    vision = tf.CLIPVisionConfig(**VISION, image_size=32)
    config = tf.LlavaConfig(
        vision_config=vision,
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=VOCAB["<image>"],
        image_seq_length=16,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = tf.LlavaProcessor(images, tokenizer(), 8, "default", num_additional_image_tokens=1)
    return tf.LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[Any, Any]:
    vision = tf.CLIPVisionConfig(**VISION, image_size=32)
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = tf.LlavaNextConfig(
        vision_config=vision,
        text_config=tf.MistralConfig(**TEXT, sliding_window=None),
        image_token_id=VOCAB["<image>"],
        image_grid_pinpoints=pinpoints,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=pinpoints,
    )
    processor = tf.LlavaNextProcessor(
        images, tokenizer(), 8, "default", num_additional_image_tokens=1
    )
    return tf.LlavaNextForConditionalGeneration(config), processor


def instructblip() -> tuple[Any, Any]:
    vision = tf.InstructBlipVisionConfig(**VISION, image_size=32)
    qformer = tf.InstructBlipQFormerConfig(
        vocab_size=N_VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        encoder_hidden_size=32,
        cross_attention_frequency=1,
    )
    config = tf.InstructBlipConfig(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=tf.LlamaConfig(**TEXT).to_dict(),
        num_query_tokens=32,
        image_token_index=VOCAB["<image>"],
    )
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor = tf.InstructBlipProcessor(images, tokenizer(), tokenizer(), num_query_tokens=32)
    return tf.InstructBlipForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    vision = tf.SiglipVisionConfig(**VISION, image_size=32, vision_use_head=False)
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64], [96, 96], [32, 96]]
    config = tf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=tf.Qwen2Config(**TEXT),
        image_token_id=VOCAB["<image>"],
        video_token_id=VOCAB["<video>"],
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_3",
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
    )
    processor = without_video(tf.LlavaOnevisionProcessor)(
        images, tokenizer(), None, 16, "full", vision_aspect_ratio="anyres_max_3"
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    vision = VISION | {"image_size": [32, 32], "patch_size": [8, 8]}
    config = tf.InternVLConfig(
        vision_config=vision,
        text_config=tf.Qwen2Config(**TEXT),
        image_token_id=VOCAB["<IMG_CONTEXT>"],
        image_seq_length=4,
    )
    images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=3)
    tok = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = without_video(tf.InternVLProcessor)(images, tok, None, image_seq_length=4)
    return tf.InternVLForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    text = tf.Gemma3TextConfig(
        **TEXT,
        # The window is shorter than prompts are, and cuts through their images.
        sliding_window=20,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
        tie_word_embeddings=False,
    )
    vision = VISION | {"image_size": 64, "vision_use_head": False}
    config = tf.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=16,
        tie_word_embeddings=False,
        image_token_id=VOCAB["<image_soft_token>"],
        boi_token_id=VOCAB["<start_of_image>"],
        eoi_token_id=VOCAB["<end_of_image>"],
    )
    images = Gemma3ImageProcessorPil(size={"height": 64, "width": 64})
    tok = tokenizer(
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    processor = tf.Gemma3Processor(images, tok, image_seq_length=16)
    return tf.Gemma3ForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    config = tf.Idefics3Config(
        vision_config=VISION | {"image_size": 32},
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=VOCAB["<image>"],
        scale_factor=2,
        pad_token_id=0,
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = tf.Idefics3Processor(images, tokenizer(), image_seq_len=4)
    return tf.Idefics3ForConditionalGeneration(config), processor


def smolvlm() -> tuple[Any, Any]:
    config = tf.SmolVLMConfig(
        vision_config=VISION | {"image_size": 32},
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=VOCAB["<image>"],
        scale_factor=2,
        pad_token_id=0,
    )
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    # num2words names video frames; images need none.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    processor = without_video(tf.SmolVLMProcessor)(images, tokenizer(), None, image_seq_len=4)
    return tf.SmolVLMForConditionalGeneration(config), processor


def paligemma() -> tuple[Any, Any]:
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = tf.PaliGemmaProcessor(images, tokenizer())
    text = TEXT | {
        "model_type": "gemma",
        "tie_word_embeddings": False,
        "vocab_size": len(processor.tokenizer),
    }
    vision = VISION | {"image_size": 32, "vision_use_head": False}
    vision |= {"model_type": "siglip_vision_model"}
    config = tf.PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=processor.image_token_id,
        projection_dim=64,
        hidden_size=64,
        tie_word_embeddings=False,
    )
    return tf.PaliGemmaForConditionalGeneration(config), processor


FAMILIES = {
    "llava": llava,
    "sharegpt4v": llava,
    "llava_next": llava_next,
    "instructblip": instructblip,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "gemma3": gemma3,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
}


@torch.no_grad()
def _draw_weights(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    for weight in model.parameters():
        if weight.dim() > 1:
            fan_in = weight[0].numel()
            weight.normal_(0, 1.4 * fan_in**-0.5, generator=generator)


@cache
def _built(name: str) -> tuple[tf.PreTrainedModel, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # Some classes draw vectors as they are made.
        model, processor = FAMILIES[name]()
    _draw_weights(model)
    model.set_attn_implementation("sdpa")
    for part in model.modules():
        if getattr(part, "generation_config", None) is not None:
            part.generation_config.eos_token_id = None  # Every generation runs to its full length.
            part.generation_config.pad_token_id = 0
            # A generated image token would want an image when the sequence is run again.
            part.generation_config.suppress_tokens = SPECIAL_IDS
    return model.eval(), processor


def build(name: str) -> tuple[tf.PreTrainedModel, Any]:
    """A fresh copy of a family's tiny model, under SDPA, and of its processor (not of its parts)."""
    model, processor = _built(name)
    return copy.deepcopy(model), copy.copy(processor)
