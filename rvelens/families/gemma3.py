"""Gemma 3: one squashed square; image tokens see one another, most layers see a window only."""

from __future__ import annotations

import math
from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, Tile, single_tile, square_side


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """The pooled square; with pan-and-scan, further squares for slices of the longer edge."""
    per_tile = config.mm_tokens_per_image
    side = square_side(per_tile)
    if side is None or n_tokens % per_tile:
        return None
    if n_tokens == per_tile:
        return single_tile(side, side)
    slices = n_tokens // per_tile - 1
    width, height = size
    length = max(width, height)
    step = math.ceil(length / slices)
    tiles = [Tile(0, side, side, side)]
    for n in range(slices):
        start, stop = n * step / length, min((n + 1) * step, length) / length
        box = (start, 0.0, stop, 1.0) if width >= height else (0.0, start, 1.0, stop)
        tiles.append(Tile((n + 1) * per_tile, side, side, side, box))
    return ImageGrid(n_tokens, tuple(tiles))


FAMILY = Family(
    name="gemma3",
    model_types=("gemma3",),
    prompts={"chat": "<start_of_turn>user\n{image}{question}<end_of_turn>\n<start_of_turn>model\n"},
    grid=_grid,
    note="a sliding-window layer enhances the image tokens inside its window",
    verified=ALL_CHECKS,
)
