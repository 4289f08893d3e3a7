"""The study of patching for readers: maps of heads, the region by layer, and what is confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rvelens.files.wording import counted, too_few
from rvelens.plots import Series, lines, surface
from rvelens.stats import FEW, above, format_change
from rvelens.studies.kit.base import Measured, Setup, Shown
from rvelens.tables import Table

_KINDS = {"images": "two images, one question", "texts": "one image, the verb swapped"}
SETS = {"region": "true region", "others": "as many others", "whole": "all image tokens"}


def show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Maps of the heads, the region by layer, and what is confirmed."""
    (data,) = measured
    return Shown(
        {"": _region_table(data), "attention": _attention_table(data), "heads": _head_table(data)},
        {"": _map(data, "images"), "texts": _map(data, "texts"), "region": _lines(data)},
        sentences=tuple(_conclude(data)),
    )


def _title(data: Measured, subject: str) -> str:
    questions = counted(data["questions"], "question")
    return f"{subject}, {data['model']}, {questions} of {data['benchmark']}"


def _region_table(data: Measured) -> Table:
    of = data["images"]
    rows = [[str(n), *(of[name][n] for name in SETS)] for n in range(len(data["rank"]))]
    notes = [
        "The residual stream before each layer, of these image tokens together: from the run on the "
        "question's own image into the run on the next photograph. 0 is the answer for the other "
        "image, 1 the answer for its own.",
        "As many others: random image tokens outside the region. Brackets: 95% bootstrap intervals "
        "over scenes. Each pair of runs counts by the distance of its two answers in logits.",
    ]
    if data["left_out"]["images"]:
        notes.append(
            "Left out, because their runs cannot be compared or their pictures could not be read: "
            f"{counted(data['left_out']['images'], 'question')}."
        )
    return Table(
        _title(data, "Effect of image tokens by layer"), ("layer", *SETS.values()), rows,
        frozenset(SETS.values()), tuple(notes),
    )  # fmt: skip


def _attention_table(data: Measured) -> Table:
    rows = [
        [str(n), *(data[kind]["attention"][n] for kind in _KINDS)] for n in range(len(data["rank"]))
    ]
    notes = [
        f"All heads of the layer together, in the last row. Texts: {counted(data['pairs'], 'pair')}."
    ]
    if data["left_out"]["texts"]:
        notes.append(f"{counted(data['left_out']['texts'], 'pair')} of texts cannot be compared.")
    return Table(
        _title(data, "Effect of each layer's attention"), ("layer", *_KINDS.values()), rows,
        frozenset(_KINDS.values()), tuple(notes),
    )  # fmt: skip


def _head_table(data: Measured) -> Table:
    """The heads with the largest effects between images."""
    n_heads = len(data["rank"][0])
    of = {kind: data[kind]["heads"] for kind in _KINDS}
    defined = [n for n, effect in enumerate(of["images"]) if effect]
    first = sorted(defined, key=lambda n: -abs(of["images"][n]["value"]))[:10]
    rows = [
        [f"{n // n_heads}.{n % n_heads}", *(of[kind][n] for kind in _KINDS),
         data["rank"][n // n_heads][n % n_heads]]
        for n in first
    ]  # fmt: skip
    return Table(
        _title(data, "Heads with the largest effects"), ("head", *_KINDS.values(), "by ARS"), rows,
        frozenset(_KINDS.values()),
        ("Head: layer and number. The output of the head in the last row is patched. By ARS: its place "
         "among the heads of its layer, 1 is the most sensitive.",),
    )  # fmt: skip


def _map(data: Measured, kind: str) -> Figure:
    rank = data["rank"]
    values = [np.nan if head is None else head["value"] for head in data[kind]["heads"]]
    z = np.array(values).reshape(len(rank), -1)
    return surface(
        np.arange(z.shape[1]), np.arange(z.shape[0]), z, x_label="head", y_label="layer",
        z_label="effect of the head", centre=0.0, digits=2, title=_KINDS[kind],
    )  # fmt: skip


def _lines(data: Measured) -> Figure:
    roles = {"region": "oracle", "others": "random", "whole": "plain"}
    return lines(
        {
            SETS[name]: Series.from_estimates(None, data["images"][name], role)
            for name, role in roles.items()
        },
        x_label="layer",
        y_label="effect",
        reference=("own image", 1.0),
    )


def _conclude(data: Measured) -> list[str]:
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    of = data["images"]
    better = [str(n) for n, gain in enumerate(of["gain"]) if gain and above(gain)]
    sentences = [
        "The true region carries more of the answer than as many other image tokens before layers "
        f"{', '.join(better)}." if better else
        "The true region is not shown to carry more of the answer than as many other image tokens.",
        f"Before layer 0, the effect of the true region is {format_change(of['region'][0])}, that of "
        f"all image tokens {format_change(of['whole'][0])}.",
    ]  # fmt: skip
    sentences += [_ranks(data[kind], about) for kind, about in _KINDS.items()]
    return [
        *sentences,
        "Intervals are over scenes, for this model and this ranking of heads. The pairs of texts may "
        "be those that ARS was measured on.",
    ]


def _ranks(of: Mapping[str, Any], about: str) -> str:
    """Whether ARS and the effects of heads correlate, against random orders of heads."""
    correlation, (low, high) = of["correlation"], of["luck"]
    beyond = above(correlation)
    if beyond is not None and low <= correlation["value"] <= high:
        beyond = None
    claim = {
        True: "ARS correlates with the effects of heads, beyond random orders",
        False: "ARS correlates negatively with the effects of heads, beyond random orders",
        None: "no correlation of ARS with the effects of heads is shown",
    }[beyond]
    return (
        f"{about[0].upper()}{about[1:]}: {claim}: rank correlation within layers "
        f"{format_change(correlation)}; "
        f"95% of random orders lie from {low:+.3f} to {high:+.3f}. Mean effect of the {of['k']} most "
        f"sensitive heads of a layer minus that of all its heads: {format_change(of['top'])}."
    )
