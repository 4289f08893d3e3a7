"""LLaVA-1.5: one square of CLIP patches, projected by an MLP."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import Family
from rvelens.grid import ImageGrid, center_crop_box, single_tile

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
CHAT = "USER: {image}\n{question} ASSISTANT:"
# The conversation of LLaVA's original code, with the question suffix of the paper's public code.
LLAVA_V1 = (
    SYSTEM + " USER: {image}\n{question} Please answer this question with one word. ASSISTANT:"
)


def grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """A square of patches over the central crop; over the whole image if nothing is cropped."""
    side = round(n_tokens**0.5)
    if side * side != n_tokens:
        return None
    crop = getattr(getattr(processor, "image_processor", None), "do_center_crop", True)
    return single_tile(side, side, center_crop_box(*size) if crop else (0.0, 0.0, 1.0, 1.0))


FAMILY = Family(
    name="llava",
    model_types=("llava",),
    prompts={"chat": CHAT, "llava_v1": LLAVA_V1},
    grid=grid,
    note="LLaVA-1.5 7B and 13B",
)
