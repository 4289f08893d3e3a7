"""The paper's numbers beside the measured ones, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rvelens.stats import Estimate
from rvelens.studies.kit.paper import PaperCell, compare, model_key
from rvelens.tables import Table

_NUMBERS = ("table", "metric", "paper", "measured", "low", "high", "difference", "note")
_PLAIN = ("model", "benchmark", "relation", "method")


def compare_with_paper(
    cells: Iterable[PaperCell], measured: Mapping[PaperCell, Estimate], title: str
) -> Table:
    """Paper, measured and difference, one row a cell; what is doubtful about a cell as footnotes.

    Args:
        cells: of the paper, in the order of the rows.
        measured: of the same model on the same questions; others have no measurement.
        title: of the table.
    """
    rows: list[tuple[str, str, str, Any, float | None]] = []
    notes: dict[str, int] = {}
    for row in compare(cells, measured):
        label = ", ".join(
            _named(k, v) for k, v in row.items() if k not in _NUMBERS and v is not None
        )
        mark = f" [{notes.setdefault(row['note'], len(notes) + 1)}]" if row["note"] else ""
        estimate = None
        if row["measured"] is not None:
            estimate = {"value": row["measured"], "low": row["low"], "high": row["high"]}
        rows.append((label, row["metric"], f"{row['paper']:g}{mark}", estimate, row["difference"]))
    return Table(
        title,
        ("what", "metric", "paper", "measured", "difference"),
        rows,
        frozenset({"difference"}),
        tuple(f"[{n}] {note}" for note, n in notes.items()),
    )


def without_number(models: Iterable[str]) -> list[str]:
    """A sentence for each model that is none of the paper's."""
    return [
        f"measured on {model}, for which the paper has no number."
        for model in models
        if model_key(model) is None
    ]


def _named(key: str, value: str | bool) -> str:
    """A key of a cell: the model's and benchmark's speak for themselves."""
    return str(value) if key in _PLAIN else f"{key} {value}".lower()
