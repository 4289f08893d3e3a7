"""Idefics3 and SmolVLM: the image squashed to a grid of square tiles, then a squashed overview."""

from __future__ import annotations

import math
from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, single_tile, tiled

LONGEST = 4096  # Above this the image processors shrink any image.


def tiles_of(width: int, height: int, longest: int, tile: int) -> tuple[int, int]:
    """Rows and columns of tiles: longer edge to `longest`, both edges up to multiples of `tile`."""
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        width, height = int(longest * ratio), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return height // tile, width // tile


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """Tiles row by row, the overview last; the overview alone for an image that is not split."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size // config.scale_factor
    images = getattr(processor, "image_processor", None)
    if n_tokens == side * side:
        return single_tile(side, side)
    if images is None:
        return None
    longest = min(images.size["longest_edge"], LONGEST)
    rows, columns = tiles_of(*size, longest, images.max_image_size["longest_edge"])
    return tiled(n_tokens, rows, columns, side, overview="last")


FAMILY = Family(
    name="idefics3",
    model_types=("idefics3", "smolvlm"),
    prompts={"chat": "User:{image}{question}<end_of_utterance>\nAssistant:"},
    grid=_grid,
    note="SmolVLM too; single images, videos are not prepared",
    replays=True,
    verified=ALL_CHECKS,
)
