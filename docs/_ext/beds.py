"""Tables over all stored runs of the study head-scores: models and questions, one row each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rvelens.scores import COMPARED
from rvelens.stats import above, format_change
from rvelens.studies.kit.settings import pair, value

STUDY = "head-scores"
Estimate = Mapping[str, float]
# What steers: columns of the table of gains, by the study's names.
STEERED = {
    "ars, published": "RVE as published",
    "ars, tuned": "RVE tuned",
    "all heads, tuned": "all heads",
    "swapped heads, tuned": "swapped heads",
    "random, tuned": "random heads",
    "true region, tuned": "true region",
}


def gains(docs: Path) -> str:
    """Accuracy without steering, and what each way of steering changes."""
    head = ("model", "image attention", "accuracy", *STEERED.values())
    rows = []
    for name, data in runs(docs):
        result = data["gains"]["result"]
        plain = value(result, "vanilla", "accuracy")
        assert plain is not None
        image = data["finding"]["image_attention"]["value"]
        cells = (_gain(result, steered) for steered in STEERED)
        rows.append((name, f"{image:.2f}", f"{plain['value']:.3f}", *cells))
    return _table(head, rows)


def controls(docs: Path) -> str:
    """RVE tuned by ARS against each control, and what it changes beside accuracy."""
    head = (
        "model",
        "over all heads",
        "over swapped heads",
        "over random heads",
        "AUC",
        "yes-ratio",
    )
    rows = []
    for name, data in runs(docs):
        over = data["gains"]["over"]
        found = pair(data["gains"]["result"], "ars, tuned")
        assert found is not None
        change = found["change"]
        cells = [
            *(over[one]["ars"] for one in ("all heads", "swapped heads", "random")),
            change["auc"],
            change["yes_ratio"],
        ]
        rows.append((name, *map(_cell, cells)))
    return _table(head, rows)


def tuned(docs: Path) -> str:
    """What RVE gains with each score's ranking, tuned, and what beyond the mask from all heads."""
    rows = []
    for name, data in runs(docs):
        result, over = data["gains"]["result"], data["gains"]["over"]["all heads"]
        rows.append((name, *(_gain(result, f"{score}, tuned") for score in COMPARED)))
        rows.append(("over all heads", *(_cell(over[score]) for score in COMPARED)))
    return _table(("model", *COMPARED), rows)


def _gain(result: Mapping[str, Any], steered: str) -> str:
    """In bold where the interval excludes 0 and McNemar's test confirms it too."""
    found = pair(result, steered)
    assert found is not None
    change = found["change"]["accuracy"]
    return _cell(change) if found["mcnemar_p"] < 0.05 else _shown(change)


def finding(docs: Path) -> str:
    """How much better the heads that each score ranks first find the region than all heads do."""
    return _beside_luck(
        docs,
        lambda data, score: data["finding"][score]["auc_over_all"],
        lambda data: data["finding"]["random_orders"]["auc_over_all"],
    )


def correlation(docs: Path) -> str:
    """Rank correlation within layers of each score and of how well a head finds the region."""
    return _beside_luck(
        docs,
        lambda data, score: data["finding"][score]["within"],
        lambda data: data["finding"]["random_orders"]["within"],
    )


def masking(docs: Path) -> str:
    """Accuracy with the heads masked that each score ranks first, minus random heads'."""
    return _beside_luck(
        docs,
        lambda data, score: data["masking"]["scores"][score]["accuracy"]["less_random"],
        lambda data: data["masking"]["random_orders"]["accuracy"],
    )


def _beside_luck(docs: Path, number: Callable[..., Estimate], luck: Callable[..., Estimate]) -> str:
    """A column a score, and what random orders of heads reach; in bold what lies beyond that."""
    rows = []
    for name, data in runs(docs):
        chance = luck(data)
        cells = (_cell(number(data, score), chance["low"], chance["high"]) for score in COMPARED)
        rows.append((name, *cells, f"{chance['low']:+.3f} to\u00a0{chance['high']:+.3f}"))
    return _table(("model", *COMPARED, "random orders"), rows)


def runs(docs: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A link to each stored run, and what it measured; questions with earlier turns come last."""
    files = docs.glob(f"studies/{STUDY}*/{STUDY}.json")
    for file in sorted(
        files, key=lambda file: (file.parent.name.endswith("-turns"), file.parent.name)
    ):
        (model,) = json.loads(file.read_text("utf-8"))["models"]
        measured = model["measured"]
        turns = ", earlier turns" if measured["benchmark"].endswith("-turns") else ""
        title = f"{measured['model'].rpartition('/')[2]}{turns}"
        yield f"[{title}](../studies/{file.parent.name}/{STUDY}.md)", measured


def _cell(estimate: Estimate, lower: float = 0.0, upper: float = 0.0) -> str:
    """In bold where the interval lies beyond what is chance."""
    text = _shown(estimate)
    return text if above(estimate, lower, upper) is None else f"**{text}**"


def _shown(estimate: Estimate) -> str:
    """As sentences have it, but that a cell breaks before the bracket alone."""
    return format_change(estimate).replace(", ", ",\u00a0")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    # Cells are Markdown of this project, with links; `rvelens.tables` would make them plain text.
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))
