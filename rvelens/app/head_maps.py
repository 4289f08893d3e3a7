"""Where one head looks for both texts of a pair, as HTML."""

from __future__ import annotations

import numpy as np

from rvelens.app.heads import Seen, parse_heads
from rvelens.app.markup import figures, note, scale
from rvelens.app.pictures import CHANGE, HEAT, changed, heated
from rvelens.studies.cases.pictures import small


def head_maps(seen: Seen | None, head: str) -> str:
    """Where a head looks for both texts, and the difference.

    Raises:
        ValueError: no head, or one that the model lacks.
    """
    if seen is None or not head.strip():
        return note("Click a head on the map: its attention for both texts appears here.")
    heads = parse_heads(head, *seen.scores.shape)
    if seen.grid is None:
        return note(
            "The image tokens of this family have no place in the picture: nothing to show."
        )
    layer, (one, *_) = next(iter(heads.items()))
    first, second = (seen.attention[n, layer, one].double().numpy() for n in range(2))
    top, change = max(first.max(), second.max()), second - first
    most, frame = float(np.abs(change).max()), small(seen.image)
    return (
        f"<h3>Head {one} of layer {layer}, ARS of this pair {seen.scores[layer, one]:.3f}</h3>"
        + figures(
            [
                (heated(frame, first, seen.grid, top), f"{seen.texts[0]} {first.sum():.1%}"),
                (heated(frame, second, seen.grid, top), f"{seen.texts[1]} {second.sum():.1%}"),
                (changed(frame, change, seen.grid, most), "second minus first"),
            ]
        )
        + scale(HEAT, "0", f"{top:.2g}", "attention to a token")
        + scale(CHANGE, f"−{most:.2g}", f"+{most:.2g}", "difference")
        + note("Attention of the last token after softmax; percentages are its share on the image.")
    )
