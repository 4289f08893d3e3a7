"""LLaVA-NeXT: a squashed overview, then tiles of the padded image with a newline token a row."""

from __future__ import annotations

import math
from typing import Any

from rvelens.families import llava
from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import Box, ImageGrid, Tile


def anyres_grid(
    config: Any, size: tuple[int, int], n_tokens: int, max_tiles: int | None = None
) -> ImageGrid | None:
    """The overview and the tiles, stitched to one rectangle from which rows of padding were cut.

    Args:
        config: model configuration with `image_grid_pinpoints` (height, width) and `vision_config`.
        size: (width, height) of the image.
        n_tokens: image tokens; None is returned where the grid does not add up to them.
        max_tiles: tiles' worth of tokens above which LLaVA-OneVision shrinks the rectangle.
    """
    # Here, since it loads what a model needs, and `import rvelens` need not wait for that.
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    tile_pixels = config.vision_config.image_size
    side = tile_pixels // config.vision_config.patch_size
    canvas = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = (pixels // tile_pixels * side for pixels in canvas)
    cut_y, cut_x = _padding(rows, columns, width, height)
    x0, y0, x1, y1 = _canvas_box(canvas[1], canvas[0], width, height)
    dx, dy = (x1 - x0) / columns, (y1 - y0) / rows
    box = (x0 + cut_x * dx, y0 + cut_y * dy, x1 - cut_x * dx, y1 - cut_y * dy)
    rows, columns = rows - 2 * cut_y, columns - 2 * cut_x
    if max_tiles is not None:
        ratio = math.sqrt(rows * columns / (max_tiles * side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
    if n_tokens != side * side + rows * (columns + 1):
        return None
    tiles = [Tile(0, side, side, side)]
    if rows and columns:  # Of a very long and narrow image nothing but newline tokens is left.
        tiles.append(Tile(side * side, rows, columns, columns + 1, box))
    return ImageGrid(n_tokens, tuple(tiles))


def _padding(rows: int, columns: int, width: int, height: int) -> tuple[int, int]:
    """Rows cut above and below, and columns cut left and right, as the model's unpadding does."""
    if width / height > columns / rows:
        return (rows - int(round(height * columns / width, 7))) // 2, 0
    return 0, (columns - int(round(width * rows / height, 7))) // 2


def _canvas_box(canvas_width: int, canvas_height: int, width: int, height: int) -> Box:
    """The padded canvas, in fractions of the image that was resized to fit and centred in it."""
    scale_x, scale_y = canvas_width / width, canvas_height / height
    if scale_x < scale_y:
        new = (canvas_width, min(math.ceil(height * scale_x), canvas_height))
    else:
        new = (min(math.ceil(width * scale_y), canvas_width), canvas_height)
    x_offset, y_offset = (canvas_width - new[0]) // 2, (canvas_height - new[1]) // 2
    x0, y0 = -x_offset / new[0], -y_offset / new[1]
    return (x0, y0, x0 + canvas_width / new[0], y0 + canvas_height / new[1])


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """Overview and unpadded tiles; newline tokens have no place in the image."""
    return anyres_grid(config, size, n_tokens)


FAMILY = Family(
    name="llava_next",
    model_types=("llava_next",),
    prompts={
        "chat": llava.SYSTEM + " USER: {image}\n{question} ASSISTANT:",
        "llava_v1": llava.LLAVA_V1,
        "mistral": "[INST] {image}\n{question} [/INST]",
    },
    grid=_grid,
    note="LLaVA-NeXT (1.6); image tokens vary with the image's shape",
    replays=True,
    verified=ALL_CHECKS,
)
