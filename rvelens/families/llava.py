"""LLaVA-1.5: one square of CLIP patches, projected by an MLP."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, seen_box, single_tile, square_side

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
CHAT = "USER: {image}\n{question} ASSISTANT:"
# The conversation of LLaVA's original code, with the question suffix of the paper's public code.
# https://github.com/LandHqzx/ARS-RVE/blob/8067247577c58ace5ac68ccc85806e012fbb3f60/Rel_hallucination_llava_MMRel.py
LLAVA_V1 = (
    SYSTEM + " USER: {image}\n{question} Please answer this question with one word. ASSISTANT:"
)


def llava_grid(
    config: Any, processor: Any, size: tuple[int, int], n_tokens: int
) -> ImageGrid | None:
    """A square of patches over the part of the image that the image processor keeps."""
    side = square_side(n_tokens)
    if side is None:
        return None
    return single_tile(side, side, seen_box(getattr(processor, "image_processor", None), *size))


FAMILY = Family(
    name="llava",
    model_types=("llava",),
    prompts={"chat": CHAT, "llava_v1": LLAVA_V1},
    grid=llava_grid,
    note="LLaVA-1.5 7B and 13B",
    replays=True,
    verified=ALL_CHECKS,
)
