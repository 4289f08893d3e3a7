"""Measured numbers for the cells of the paper's Tables 1, 3 and 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rvelens.stats import Estimate
from rvelens.studies.kit.base import Measured
from rvelens.studies.kit.comparison import compare_with_paper, without_number
from rvelens.studies.kit.paper import COUNTED, PaperCell, model_key, paper_cells
from rvelens.tables import Cell, Table

ABOUT = {
    "table1": "Table 1, action relations",
    "table3": "Table 3, spatial relations",
    "table4": "Table 4, objects",
}
INSTANCE = "rbench-instance"
# Benchmarks of several relations, of which the paper never has all questions together.
_OF_RELATIONS = ("mmrel", "rbench")


def compare_tables(measured: Sequence[Measured]) -> dict[str, Table]:
    """The paper's three tables with what was measured of them, and R-Bench (Instance) apart."""
    notes, numbers = tuple(_notes(measured)), main_table_cells(measured)
    tables = {}
    for name, title in ABOUT.items():
        cells = paper_cells(name)
        estimates = {cell: number for cell, number in numbers.items() if cell.table == name}
        # Without a measurement it is the paper's alone, which nobody wants in a terminal.
        table = compare_with_paper(cells, estimates, f"Paper and measurement: {title}")
        tables[name] = replace(table, notes=table.notes + notes, aside=not estimates)
    return tables | _instance(measured)


def main_table_cells(measured: Sequence[Measured]) -> dict[PaperCell, Estimate]:
    """The measured values of the cells of the three tables."""
    return {
        cell: Estimate(**number)
        for table in ABOUT
        for data in measured
        for cell in paper_cells(table)
        if cell.model == model_key(data["model"])
        and (number := compared(data, cell, cell.benchmark)) is not None
    }


def compared(data: Measured, cell: PaperCell, benchmark: str | None) -> dict[str, float] | None:
    """The measured number for a cell of the paper, on a benchmark of that name.

    It is the mean over the published lists where there are some, else over all questions. None where
    it was not measured, or on other relations than the cell's.
    """
    if benchmark is None or data["relations"].get(benchmark) != cell.relation:
        return None
    rules = data["report"]["benchmarks"][benchmark]["rules"]
    figures = rules["official"]["methods"].get(cell.method) if rules else None
    if figures is None:
        return None
    return data["over_lists"][benchmark].get(cell.method, figures)[cell.metric]


def paper_value(data: Measured, benchmark: str, method: str) -> float:
    """The paper's accuracy of what was measured; NaN where it has none."""
    for table in ABOUT:
        for cell in paper_cells(table):
            if (cell.benchmark, cell.method, cell.metric) == (benchmark, method, "accuracy") and (
                cell.model == model_key(data["model"])
                and cell.relation == data["relations"][benchmark]
            ):
                return cell.value
    return float("nan")


def _instance(measured: Sequence[Measured]) -> dict[str, Table]:
    """R-Bench with marked things: both ways of marking, since the paper does not say which is its."""
    rows: list[list[Cell]] = []
    for data in measured:
        for cell in (*paper_cells("table1"), *paper_cells("table3")):
            if cell.benchmark == INSTANCE and cell.model == model_key(data["model"]):
                both = [compared(data, cell, f"{INSTANCE}-{mark}") for mark in ("box", "mask")]
                if any(both):
                    labels = [cell.model, cell.relation, cell.method, cell.metric, cell.value]
                    rows.append([*labels, *both])
    if not rows:
        return {}
    columns = ["model", "relation", "method", "metric", "paper", "boxes", "masks"]
    for place in (6, 5):  # one way of marking may not have been asked about
        if all(row[place] is None for row in rows):
            columns.pop(place)
            rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    note = (
        "The paper does not say whether its R-Bench (Instance) is of boxes or of masks, so neither is "
        "subtracted from it."
    )
    return {"instance": Table("R-Bench (Instance)", tuple(columns), rows, notes=(note,))}


def _notes(measured: Sequence[Measured]) -> Iterator[str]:
    """Why a measured number has no cell of the paper, and which number is in a cell."""
    paper = {str(cell.benchmark) for table in ABOUT for cell in paper_cells(table)}
    yield from without_number(data["model"] for data in measured)
    yield from _fewer(measured)
    for name, relation in measured[0]["relations"].items():
        lists = [data["over_lists"][name].get("lists") for data in measured]
        if name.startswith(INSTANCE):
            yield f"{name}: the paper does not say whether it marks boxes or masks; not compared."
        elif name not in paper:
            yield f"{name}: the paper has no number of it."
        elif relation == "all" and name.startswith(_OF_RELATIONS):
            yield (
                f"{name}: all relations were asked about, and the paper's numbers are of action or of "
                "spatial questions; not compared (--relation action or --relation spatial is)."
            )
        elif name.startswith("rbench") and lists[0]:
            yield f"{name}: measured is the mean over {lists[0]} published lists of questions."
        elif name.startswith("rbench"):
            yield f"{name}: measured is over all questions, since the published lists are not there."
        if name.startswith("rbench") and relation != "all":
            yield (
                f"{name}: which questions are of {relation} relations is this project's rule; the "
                "paper's subset was not published."
            )


def _fewer(measured: Sequence[Measured]) -> Iterator[str]:
    """Benchmarks of which fewer questions were measured than the paper's number is of."""
    for name in measured[0]["relations"]:
        n = min(data["report"]["benchmarks"][name]["questions"] for data in measured)
        whole, _ = COUNTED.get(name, (n, 0))
        if n < whole:
            yield f"{name}: measured on {n} of the {whole} questions that the paper's number is of."
