"""Tables over all stored runs of the study head-scores: models and questions, one row each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
SCORES = (
    "ars",
    "difference",
    "ars-renormalised",
    "mass-weighted",
    "gradient",
    "patching",
    "random",
)


def gains(docs: Path) -> str:
    """Accuracy without steering, and what each way of steering changes."""
    head = ("model", "image attention", "accuracy", *STEERED.values())
    rows = []
    for name, data in runs(docs):
        pairs = _pairs(data)
        plain = data["gains"]["result"]["rules"]["strict"]["methods"]["vanilla"]["accuracy"]
        image = data["finding"]["image_attention"]["value"]
        cells = (_gain(pairs[steered]) for steered in STEERED)
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
        change = _pairs(data)["ars, tuned"]["change"]
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
        pairs, over = _pairs(data), data["gains"]["over"]["all heads"]
        rows.append((name, *(_gain(pairs[f"{score}, tuned"]) for score in SCORES)))
        rows.append(("over all heads", *(_cell(over[score]) for score in SCORES)))
    return _table(("model", *SCORES), rows)


def _pairs(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Comparisons with the plain model, by what steers."""
    pairs = data["gains"]["result"]["rules"]["strict"]["pairs"]
    return {p["after"]: p for p in pairs if p["before"] == "vanilla"}


def _gain(pair: Mapping[str, Any]) -> str:
    """In bold where McNemar's test confirms it too."""
    text = _cell(pair["change"]["accuracy"])
    return text if pair["mcnemar_p"] < 0.05 else text.strip("*")


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
        cells = (_cell(number(data, score), chance["low"], chance["high"]) for score in SCORES)
        rows.append((name, *cells, f"{chance['low']:+.3f} to\u00a0{chance['high']:+.3f}"))
    return _table(("model", *SCORES, "random orders"), rows)


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
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    text = f"{value:+.3f} [{low:+.3f},\u00a0{high:+.3f}]"  # breaks before the bracket alone
    return f"**{text}**" if low > upper or high < lower else text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))
