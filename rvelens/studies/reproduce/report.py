"""A plan and a reproduction, as tables, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rvelens.benchmarks.published import sources
from rvelens.files.wording import counted
from rvelens.stats import Estimate
from rvelens.studies.kit.base import Work
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import PaperCell, compare, lookup, model_key, paper_cells
from rvelens.studies.reproduce.pace import Pace
from rvelens.studies.reproduce.plan import PlannedRun
from rvelens.studies.reproduce.run import RunResult
from rvelens.studies.reproduce.targets import TARGETS, Target
from rvelens.tables import Table, markdown_text

_FIGURES = {"figure7": ("7",), "figure8": ("8a", "8b")}


def cells_of(target: Target, model: str) -> list[PaperCell]:
    """The paper's numbers of a target for a model; none for a model that is not the paper's."""
    cells: list[PaperCell] = []
    for name in target.results:
        if name.startswith("table"):
            cells += paper_cells(name)
        else:
            for figure in _FIGURES.get(name, (name.removeprefix("figure"),)):
                cells += lookup("figures", figure=figure)
    key = model_key(model)
    return [cell for cell in cells if key is not None and cell.model in (None, key)]


def _targets(rows: Iterable[PlannedRun]) -> list[Target]:
    """The targets that rows are of, in the paper's order."""
    chosen = {row.target for row in rows}
    return [target for target in TARGETS if target in chosen]


def plan_table(
    rows: Iterable[tuple[PlannedRun, Work]], pace: Pace, done: Mapping[PlannedRun, bool]
) -> tuple[Table, float]:
    """Cost of each row, and hours of those that are not done."""
    lines: list[list[Any]] = []
    remaining = 0.0
    for row, work in rows:
        hours = pace.seconds(work) / 3600
        remaining += 0.0 if done[row] else hours
        lines.append(
            [
                row.target.name, row.label, row.n_questions,
                work.prompts, pace.decoded(work), f"{hours:.2g}",
                f"{work.stored / 2**20 + 1:.0f}", "done" if done[row] else "",
            ]
        )  # fmt: skip
    notes = (
        f"prefill: whole prompts, at most; decode: further tokens, with answers of {pace.length:.1f}.",
        f"hours: of the plain model at {pace.prompt:.2g} s a prompt and {pace.token:.2g} s a token, "
        f"measured on {counted(pace.questions, 'question')}. Methods that edit all rows "
        "(VAF) take longer; "
        "settings side by side, less.",
        "MB: answers and figures on the disk, about.",
    )
    columns = ("result", "questions of", "asked", "prefill", "decode", "hours", "MB", "state")
    return Table("Plan, the cheapest first", columns, lines, notes=notes), remaining


def lacks(rows: Sequence[PlannedRun]) -> list[str]:
    """A line for each reason why rows cannot be run, and for each place where their files are."""
    of_reason: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        of_reason.setdefault((row.label, row.reason), []).append(row.target.name)
    lines = [
        f"not run: {label} of {', '.join(targets)}: {reason}"
        for (label, reason), targets in of_reason.items()
    ]
    names = dict.fromkeys(name for row in rows if row.lacks_files for name in row.names)
    places = dict.fromkeys(source for name in names for source in sources(name))
    return [*lines, *(f"published: {source}" for source in places)]


def open_points(rows: Iterable[PlannedRun]) -> list[str]:
    """What the paper leaves open, each with the results that it is open for."""
    by_point: dict[str, list[str]] = {}
    for target in _targets(rows):
        for point in target.leaves_open:
            by_point.setdefault(point, []).append(target.name)
    return [f"{', '.join(names)}: {point}" for point, names in by_point.items()]


def tables_of(results: Sequence[RunResult], model: str) -> Iterator[Table]:
    """For each target its cells beside the paper's; where the paper has none, what was measured."""
    for target in _targets(result.row for result in results):
        of_target = [result for result in results if result.row.target == target]
        yield from _tables_of_target(target, of_target, model)


def _tables_of_target(target: Target, results: Sequence[RunResult], model: str) -> Iterator[Table]:
    cells, measured = cells_of(target, model), _measured(results)
    if measured:
        title = f"Paper and measurement: {', '.join(target.results)}"
        table = compare_with_paper(cells, {c: e for c, e in measured.items() if c in cells}, title)
        yield replace(table, notes=(*table.notes, *_notes(results)))
    for result in results:
        if result.shown is None:
            continue
        if "instance" in result.shown.tables:
            yield result.shown.tables["instance"]
        elif not measured and "" in result.shown.tables:
            yield result.shown.tables[""]


def _notes(results: Sequence[RunResult]) -> Iterator[str]:
    """How many questions were asked, and what the studies say of what they measured."""
    notes = [f"{result.row.label}: {result.row.n_questions} were asked." for result in results]
    for result in results:
        tables = {} if result.shown is None else result.shown.tables
        notes += [note for table in tables.values() if not table.aside for note in table.notes]
    # Numbered ones are of cells, and "best" is a column that this table has not.
    yield from dict.fromkeys(note for note in notes if not note.startswith(("[", "best:")))


def _measured(results: Iterable[RunResult]) -> dict[PaperCell, Estimate]:
    return {
        cell: number
        for result in results
        if result.shown is not None
        for cell, number in result.shown.measured.items()
    }


def to_json(
    results: Sequence[RunResult], lacking: Sequence[PlannedRun], model: str
) -> dict[str, Any]:
    """Every cell with its measurement, and every row with its state."""
    targets = _targets(result.row for result in results)
    cells = [cell for target in targets for cell in cells_of(target, model)]
    measured = {c: e for c, e in _measured(results).items() if c in cells}
    return {
        "reproduce": model,
        "cells": compare(cells, measured),
        "rows": [
            {"result": result.row.target.name, "of": result.row.label, "reason": result.reason}
            for result in (*results, *(RunResult(row, reason=row.reason) for row in lacking))
        ],
        "open": open_points(result.row for result in results),
    }


def reproduction_to_markdown(
    results: Sequence[RunResult], lacking: Sequence[PlannedRun], model: str
) -> str:
    """The tables, what was not run, and what the paper leaves open."""
    lines = [f"# The paper's tables on {markdown_text(model)}", ""]
    for table in tables_of(results, model):
        lines += [f"**{markdown_text(table.title)}**", "", table.to_markdown(), ""]
        lines += [f"{markdown_text(note)}\n" for note in table.notes]
    failed = [
        f"{r.row.target.name}, {r.row.label}: failed: {r.reason}" for r in results if r.reason
    ]
    for title, points in (
        ("Not run", [*failed, *lacks(lacking)]),
        ("What the paper leaves open", open_points(r.row for r in results)),
    ):
        if points:
            lines += [f"## {title}", "", *(f"- {markdown_text(point)}" for point in points), ""]
    return "\n".join(lines)
