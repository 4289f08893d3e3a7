"""PaliGemma: one squashed square; the whole prompt sees itself in both directions."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, single_tile, square_side


def _refuse(config: Any) -> str | None:
    """PaliGemma 2, whose decoder SDPA computes differently from the model's own definition."""
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        return (
            "PaliGemma 2's language model gemma2 caps attention scores with tanh, which SDPA "
            "cannot compute"
        )
    return None


def _grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """A square of patches over the whole image, which was squashed to it."""
    side = square_side(n_tokens)
    return None if side is None else single_tile(side, side)


FAMILY = Family(
    name="paligemma",
    model_types=("paligemma",),
    prompts={
        "chat": "{image}answer en {question}",
        "plain": "{image}{question}",
    },
    grid=_grid,
    refuse=_refuse,
    note="PaliGemma 1; PaliGemma 2 is refused (soft-capped scores)",
    verified=ALL_CHECKS,
)
