"""Where one head looks for both texts of a pair, as HTML."""

from __future__ import annotations

import numpy as np

from rvelens.app.heads import PairAttention, parse_heads
from rvelens.app.markup import figures, note, scale
from rvelens.app.pictures import CHANGE, HEAT, changed, heated
from rvelens.studies.cases.pictures import small


def head_maps(recorded: PairAttention | None, head: str) -> str:
    """Where a head looks for both texts, and the difference.

    Raises:
        ValueError: no head, or one that the model lacks.
    """
    if recorded is None or not head.strip():
        return note("Click a head on the map: its attention for both texts appears here.")
    heads = parse_heads(head, *recorded.scores.shape)
    if recorded.grid is None:
        return note(
            "The image tokens of this family have no place in the picture: nothing to show."
        )
    layer, (number, *_) = next(iter(heads.items()))
    first, second = (recorded.attention[n, layer, number].double().numpy() for n in range(2))
    score = recorded.scores[layer, number]
    top, change = max(first.max(), second.max()), second - first
    most, frame = float(np.abs(change).max()), small(recorded.image)
    return (
        f"<h3>Head {number} of layer {layer}, ARS of this pair {score:.3f}</h3>"
        + figures(
            [
                (
                    heated(frame, first, recorded.grid, top),
                    f"{recorded.texts[0]} {first.sum():.1%}",
                ),
                (
                    heated(frame, second, recorded.grid, top),
                    f"{recorded.texts[1]} {second.sum():.1%}",
                ),
                (changed(frame, change, recorded.grid, most), "second minus first"),
            ]
        )
        + scale(HEAT, "0", f"{top:.2g}", "attention to a token")
        + scale(CHANGE, f"−{most:.2g}", f"+{most:.2g}", "difference")
        + note("Attention of the last token after softmax; percentages are its share on the image.")
    )
