"""LLaVA-OneVision: LLaVA-NeXT's tiles, shrunk where they are many, on a Qwen2 decoder."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.families.llava_next import anyres_grid
from rvelens.grid import ImageGrid


def grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """Overview and unpadded tiles, as LLaVA-NeXT, interpolated above the configured tile count."""
    max_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    return anyres_grid(config, size, n_tokens, max_tiles)


FAMILY = Family(
    name="llava_onevision",
    model_types=("llava_onevision",),
    prompts={"chat": "<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n"},
    grid=grid,
    note="single images; videos are not prepared",
    replays=True,
    verified=ALL_CHECKS,
)
