"""The map and the list of all heads, and the marks on them, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rvelens.app.heads import PairAttention, format_heads, parse_heads, sorted_heads
from rvelens.app.heads_code import PAIR
from rvelens.app.markup import head_list, head_map, head_marks, note
from rvelens.app.models import Loaded


def marks_html(shown: str, listed: str, shape: Sequence[int]) -> str:
    """Marks of the head on show and of the listed ones."""
    heads = parse_heads(listed, *shape)
    return head_marks(
        format_heads(parse_heads(shown, *shape)), format_heads(heads).split(", ") if heads else ()
    )


def numbers(scores: Float[Tensor, "layer head"]) -> Float[np.ndarray, "layer head"]:
    """Scores as numpy draws them."""
    return scores.float().cpu().numpy()


def map_html(loaded: Loaded, recorded: PairAttention | None, by: str, order: str) -> str:
    """The map and the list of the profile's ARS or of this pair's."""
    if by == PAIR:
        if recorded is None:
            return note("Look at the pair first: its ARS is then shown here.")
        return _drawn(numbers(recorded.scores), order)
    if loaded.profile is None or loaded.profile.mean is None:
        why = "no head profile" if loaded.profile is None else "a ranking without scores"
        return note(
            f"{loaded.model.name} has {why}: measure one here, or look at a pair and show its ARS."
        )
    return _drawn(numbers(loaded.profile.mean), order)


def _drawn(scores: Float[np.ndarray, "layer head"], order: str) -> str:
    return head_map(scores) + head_list(scores, sorted_heads(scores, order))
