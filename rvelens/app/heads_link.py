"""What the tab Heads shows, as parts of the address, and back."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from rvelens.app.heads import format_heads, parse_heads
from rvelens.app.shared import N_SCENES, scene_pairs

UPLOAD = "upload"
# Writes the fields into the address whenever one of them changes; empty ones are left out.
WRITE = """(pair, question, contrastive, head, without) => {
  const parts = {pair, question, contrastive, head, without};
  const given = Object.entries(parts).filter(([, value]) => value);
  window.rvAddress(Object.fromEntries(given.map(([key, value]) => ['heads.' + key, value])), 'heads');
}"""


@dataclass(frozen=True)
class HeadsPlace:
    """What an address says of the tab Heads.

    Attributes:
        pair: number of the drawn pair.
        head: on show, "layer.head"; "" for none.
        without: heads to leave out, as `parse_heads` reads them.
    """

    pair: int
    question: str
    contrastive: str
    head: str
    without: str


def read_heads_link(query: str, n_layers: int, n_heads: int) -> HeadsPlace | None:
    """The place that an address names; None where it says nothing of this tab.

    Raises:
        ValueError: a pair or heads that there are none of, or an uploaded picture.
    """
    prefix = "heads."
    parts = {
        key.removeprefix(prefix): value
        for key, value in parse_qsl(query.removeprefix("?"))
        if key.startswith(prefix)
    }
    if not parts:
        return None
    number = parts.get("pair", "0")
    if number == UPLOAD:
        raise ValueError(
            "the address is of an uploaded picture of a pair, which no address carries: expected the "
            "picture; drop it again."
        )
    if not (number.isascii() and number.isdigit() and int(number[:8]) < N_SCENES):
        raise ValueError(
            f"the address has heads.pair={number}: expected a number from 0 to {N_SCENES - 1}; "
            "correct it."
        )
    pair = scene_pairs()[int(number)]
    head, without = (
        format_heads(parse_heads(parts.get(key, ""), n_layers, n_heads))
        for key in ("head", "without")
    )
    return HeadsPlace(
        int(number),
        parts.get("question", pair.question),
        parts.get("contrastive", pair.contrastive),
        head,
        without,
    )
