"""Measured scores for the cells of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rvelens.stats import Estimate
from rvelens.studies.kit.base import Measured
from rvelens.studies.kit.comparison import compare_with_paper, without_number
from rvelens.studies.kit.paper import PaperCell, model_key, paper_cells
from rvelens.tables import Table

_DOMAINS = {"real-action": "real", "dalle-action": "dalle"}


def scored_groups(data: Measured) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Benchmark, group and figures, wherever something was scored."""
    for benchmark, result in data["benchmarks"].items():
        for group, figures in result["groups"].items():
            if figures["n"]:
                yield benchmark, group, figures


def paper_cell(data: Measured, benchmark: str, group: str, method: str) -> PaperCell | None:
    """The paper's cell of what was measured, None where it has none."""
    for cell in paper_cells("table2"):
        place = (cell.model, cell.benchmark, cell.setting["domain"], cell.method)
        if place == (model_key(data["model"]), benchmark, _DOMAINS.get(group), method):
            return cell
    return None


def open_ended_cells(measured: Sequence[Measured]) -> dict[PaperCell, Estimate]:
    """What a judge gave, by the paper's cell."""
    return {
        cell: Estimate(**mean)
        for data in measured
        if data["judge"]
        for benchmark, group, figures in scored_groups(data)
        for method, mean in figures["mean"].items()
        if (cell := paper_cell(data, benchmark, group, method)) is not None
    }


def compare_table2(measured: Sequence[Measured]) -> Table:
    """Table 2 with what was measured of it."""
    estimates = open_ended_cells(measured)
    table = compare_with_paper(
        paper_cells("table2"), estimates, "Paper and measurement: Table 2, judge scores"
    )
    notes = [
        "The wording of the judge's prompt is this project's own, on the paper's criteria: these means "
        "are not to be compared with the paper's as if one judge had given both.",
        f"The paper's judge is GPT-5-mini, the measurement's {measured[0]['judge']}.",
        *without_number([data["model"] for data in measured]),
    ]
    return replace(table, notes=(*table.notes, *notes), aside=not estimates)
