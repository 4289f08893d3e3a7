"""Tables over all stored runs of the study head-scores: models and questions, one row each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STUDY = "head-scores"
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
        change = _changes(data)
        plain = data["gains"]["result"]["rules"]["strict"]["methods"]["vanilla"]["accuracy"]
        image = data["finding"]["image_attention"]["value"]
        rows.append(
            (name, f"{image:.2f}", f"{plain['value']:.3f}", *(_cell(change[s]) for s in STEERED))
        )
    return _table(head, rows)


def tuned(docs: Path) -> str:
    """What RVE gains with each score's ranking, tuned, and what beyond the mask from all heads."""
    rows = []
    for name, data in runs(docs):
        change, over = _changes(data), data["gains"]["over_control"]
        rows.append((name, *(_cell(change[f"{score}, tuned"]) for score in SCORES)))
        rows.append(("beyond all heads", *(_cell(over[score]) for score in SCORES)))
    return _table(("model", *SCORES), rows)


def _changes(data: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Change of accuracy by what steers, against the plain model."""
    pairs = data["gains"]["result"]["rules"]["strict"]["pairs"]
    return {p["after"]: p["change"]["accuracy"] for p in pairs if p["before"] == "vanilla"}


def finding(docs: Path) -> str:
    """How much better the heads that each score ranks first find the region than all heads do."""
    rows = [
        (name, *(_cell(data["finding"][score]["auc_over_all"]) for score in SCORES))
        for name, data in runs(docs)
    ]
    return _table(("model", *SCORES), rows)


def masking(docs: Path) -> str:
    """Accuracy with the heads masked that each score ranks first, minus random heads'."""
    rows = []
    for name, data in runs(docs):
        scores = data["masking"]["scores"]
        rows.append((name, *(_cell(scores[s]["accuracy"]["less_random"]) for s in SCORES)))
    return _table(("model", *SCORES), rows)


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


def _cell(estimate: Mapping[str, float]) -> str:
    """In bold where the interval excludes 0."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    text = f"{value:+.3f} [{low:+.3f},\u00a0{high:+.3f}]"  # breaks before the bracket alone
    return f"**{text}**" if low > 0 or high < 0 else text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))
