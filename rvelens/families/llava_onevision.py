"""LLaVA-OneVision: LLaVA-NeXT's tiles, shrunk where they are many, on a Qwen2 decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.families.llava_next import anyres_grid
from rvelens.tokens.grid import ImageGrid, VideoGrid


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """Overview and unpadded tiles, as LLaVA-NeXT, interpolated above the configured tile count."""
    max_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    return anyres_grid(config, size, n_tokens, max_tiles)


def _video_grid(config: Any, inputs: Mapping[str, Any], video: int) -> VideoGrid | None:
    """Frames pooled to half of their patches a side, and one newline token behind the last."""
    if inputs.get("pixel_values_videos") is None:
        return None
    frames = inputs["pixel_values_videos"].shape[1]
    side = math.ceil(config.vision_config.image_size // config.vision_config.patch_size / 2)
    return VideoGrid(frames, side, side, frames * side * side + 1)


FAMILY = Family(
    name="llava_onevision",
    model_types=("llava_onevision",),
    prompts={"chat": "<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n"},
    grid=_grid,
    video_grid=_video_grid,
    note="single images; videos from the processor's own inputs",
    replays=True,
    verified=ALL_CHECKS,
)
