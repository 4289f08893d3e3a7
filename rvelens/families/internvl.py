"""InternVL: the image squashed to a grid of square tiles, then a squashed overview."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, single_tile, square_side, tiled


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """Tiles row by row, the overview last; the overview alone where one tile suffices."""
    # Here, since it loads what a model needs, and `import rvelens` need not wait for that.
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        get_optimal_tiled_canvas,
    )

    side = square_side(config.image_seq_length)
    images = getattr(processor, "image_processor", None)
    if side is None:
        return None
    if n_tokens == side * side:
        return single_tile(side, side)
    if images is None:
        return None
    tile = (images.size["height"], images.size["width"])
    columns, rows = get_optimal_tiled_canvas(
        (size[1], size[0]), tile, images.min_patches, images.max_patches
    )
    return tiled(n_tokens, rows, columns, side, overview="last")


FAMILY = Family(
    name="internvl",
    model_types=("internvl",),
    prompts={"chat": "<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n"},
    grid=_grid,
    note="InternVL 2.5 to 3.5 in transformers' format (the -hf weights)",
    replays=True,
    verified=ALL_CHECKS,
)
