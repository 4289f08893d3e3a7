"""Speed and memory, measured side by side in one process.

Every setting generates once per round and the settings take turns, so that what else the machine
does falls on all of them alike; what is reported are medians of the ratios within each round.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from rvelens.ars import ARSProfile
from rvelens.hooks import rve_hooks
from rvelens.layers import parse_layers
from rvelens.memory import capture_memory, check_room
from rvelens.model import HookedLVLM
from rvelens.tokens import attach_tokens

Inputs = dict[str, Tensor]
Progress = Callable[[Iterable[Any]], Iterable[Any]]
IMAGE_TOKEN = 32000
PLAIN, UNHOOKED, RVE, BRIDGE = "transformers SDPA", "HookedLVLM", "HookedLVLM + RVE", "Bridge + RVE"


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


SHAPES = {
    "tiny": Shape(8, 768, 12, 2048, 2, 256, torch.float32),
    "llava-1.5-7b": Shape(32, 4096, 32, 11008, 24, 1024, torch.bfloat16),
}


def config_of(shape: Shape) -> LlavaConfig:
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


def build(shape: Shape, device: str) -> PreTrainedModel:
    """A LLaVA of this shape with random weights; generations run to their full length.

    Raises:
        ValueError: no such device, or not enough memory on it.
    """
    # Half as much again for the vision tower, activations and caches.
    check_room(1.5 * shape.gib, device)
    torch.manual_seed(0)
    with torch.device(device):
        return LlavaForConditionalGeneration._from_config(
            config_of(shape), dtype=shape.dtype, attn_implementation="sdpa"
        ).eval()


def prompt_of(model: PreTrainedModel, text_tokens: int, images: int = 1) -> Inputs:
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


def run(
    shape_name: str,
    *,
    runs: int = 7,
    new_tokens: int = 16,
    device: str = "cpu",
    progress: Progress = iter,
) -> dict[str, Any]:
    """Measure a shape: seconds of each setting, ratios to plain SDPA, memory of an ARS capture.

    Args:
        shape_name: one of `SHAPES`.
        runs: rounds, at least 7 for figures to be quoted; one more warms up.
        new_tokens: tokens each generation adds.
        device: "cpu" or "cuda".
        progress: wraps the iteration over rounds, for a progress bar.

    Raises:
        ValueError: an unknown shape, too few rounds, or a device that cannot hold the model.
    """
    if shape_name not in SHAPES:
        raise ValueError(f"shape {shape_name!r}: expected one of {', '.join(SHAPES)}.")
    if runs < 1:
        raise ValueError(f"runs={runs}: expected at least 1, and 7 for figures to be quoted.")
    return run_shape(SHAPES[shape_name], shape_name, runs, new_tokens, device, progress)


def run_shape(
    shape: Shape, name: str, runs: int, new_tokens: int, device: str, progress: Progress
) -> dict[str, Any]:
    """`run` for a shape of one's own."""
    hf_model = build(shape, device)
    hooked = HookedLVLM(_twin(hf_model))
    inputs = prompt_of(hf_model, shape.text_tokens)
    layers = parse_layers("preset", None, hooked.n_layers)
    settings, missing = _settings(hf_model, hooked, inputs, layers, new_tokens)
    seconds = _interleaved(settings, runs, device, progress)
    ratios = {
        setting: [a / b for a, b in zip(times, seconds[PLAIN], strict=True)]
        for setting, times in seconds.items()
    }
    prompts = [prompt_of(hf_model, shape.text_tokens, images) for images in (1, 2)]
    return {
        "shape": name,
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
        "dtype": str(shape.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "layers": hooked.n_layers,
        "rve_layers": layers,
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "new_tokens": new_tokens,
        "runs": runs,
        "seconds": {setting: statistics.median(times) for setting, times in seconds.items()},
        "ratios": {setting: statistics.median(r) for setting, r in ratios.items()},
        "quartiles": {setting: _quartiles(r) for setting, r in ratios.items()},
        "missing": missing,
        "capture": [capture_memory(hooked, prompt) for prompt in prompts],
    }


def _quartiles(x: list[float]) -> list[float]:
    return [float(torch.tensor(x).quantile(q)) for q in (0.25, 0.75)]


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights (shared, not copied) in modules of their own."""
    memo = {id(p): p for p in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _settings(
    hf_model: PreTrainedModel,
    hooked: HookedLVLM,
    inputs: Inputs,
    layers: list[int],
    new_tokens: int,
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """What to time, and the reason of what cannot be timed here."""
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
    scores = torch.rand(hooked.n_layers, hooked.n_heads, generator=torch.Generator().manual_seed(2))
    hooks = rve_hooks(ARSProfile.from_scores(scores), layers, k=min(5, hooked.n_heads // 2))

    @torch.no_grad()
    def under_rve() -> None:
        with hooked.hooks(hooks):
            hooked.generate(**inputs, **options)

    generate: Any = hf_model.generate
    settings: dict[str, Callable[[], Any]] = {
        PLAIN: torch.no_grad()(lambda: generate(**inputs, **options)),
        UNHOOKED: lambda: hooked.generate(**inputs, **options),
        RVE: under_rve,
    }
    try:
        bridge = boot_bridge(_twin(hf_model))
    except Exception as error:  # Whatever keeps TransformerLens from booting is shown, not raised.
        return settings, {BRIDGE: f"{type(error).__name__}: {' '.join(str(error).split())}"}
    attach_tokens(bridge.hook_dict.values(), hooked.token_map(inputs))

    @torch.no_grad()
    def bridge_under_rve() -> None:
        with bridge.hooks(fwd_hooks=hooks):
            bridge.original_model.generate(**inputs, **options)

    return {**settings, BRIDGE: bridge_under_rve}, {}


def boot_bridge(hf_model: PreTrainedModel) -> Any:
    """TransformerLens' bridge around a loaded LLaVA; the model is changed in place."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    with no_installs():
        return build_bridge_from_module(
            hf_model, "LlavaForConditionalGeneration", hf_config=hf_model.config
        )


@contextmanager
def no_installs() -> Iterator[None]:
    """Keep TransformerLens from running `pip install torchvision`, which would replace torch."""
    from transformer_lens.model_bridge.sources.transformers import helpers

    before = helpers._ensure_torchvision
    helpers._ensure_torchvision = lambda: False
    try:
        yield
    finally:
        helpers._ensure_torchvision = before


def _interleaved(
    settings: dict[str, Callable[[], Any]], runs: int, device: str, progress: Progress
) -> dict[str, list[float]]:
    """Seconds of each setting in each round, after a round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    order = list(settings)
    for number in progress(range(runs + 1)):
        # Each round starts with another setting, so that none always follows the same one.
        for name in order[number % len(order) :] + order[: number % len(order)]:
            _wait(device)
            start = time.perf_counter()
            settings[name]()
            _wait(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
