"""Counting and measuring the rows of a plan, in order of cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvelens.evaluate.processes import processes
from rvelens.evaluate.run import Progress
from rvelens.files.atomic import one_line
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.studies.kit.base import Setup, Shown, Work
from rvelens.studies.kit.parts import Parts
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study
from rvelens.studies.reproduce.plan import PlannedRun, Request


@dataclass(frozen=True, eq=False)
class RunResult:
    """A row that was run, or that could not be.

    Attributes:
        row: of the plan.
        shown: its tables and what was measured; None where it was not.
        reason: why not.
    """

    row: PlannedRun
    shown: Shown | None = None
    reason: str = ""


def count(row: PlannedRun, model: HookedLVLM, request: Request, out: Path) -> Work:
    """What a row will run and store."""
    work = row.study.work
    assert work is not None  # every study of a target counts
    return work(
        Setup(
            model, benchmarks=row.benchmarks, parts=Parts(row.folder(out)),
            **_made_with(row, model, request),
        )
    )  # fmt: skip


def by_cost(
    rows: Sequence[PlannedRun], model: HookedLVLM, request: Request, out: Path
) -> list[tuple[PlannedRun, Work]]:
    """Rows with their work, the cheapest first; an answer counts as a tenth of a prompt."""
    counted = [(row, count(row, model, request, out)) for row in rows]
    return sorted(counted, key=lambda entry: entry[1].prompts + entry[1].answers / 10)


def reproduce(
    rows: Sequence[PlannedRun],
    model: HookedLVLM,
    request: Request,
    out: str | Path,
    *,
    progress: Progress = lambda items, label: items,
    began: Callable[[PlannedRun], None] = lambda row: None,
) -> Iterator[RunResult]:
    """Measure rows in the order given, each in a folder of its own below `out`.

    An interrupted row is resumed. A row that fails says why, and the next one runs; in several
    processes, which share each row, it ends the run. All but the first have no results.

    Args:
        rows: that can be run, from `make_rows`, as `by_cost` sorts them.
        model: without hooks that are on.
        request: that the rows were made with.
        out: folder of all.
        progress: wraps iterations, with a label, for progress bars.
        began: is called before each row.
    """
    for row in rows:
        began(row)
        folder = row.folder(Path(out))
        try:
            done = run_study(
                row.study, model, row.benchmarks, folder, any_text=request.any_text,
                progress=progress, **_made_with(row, model, request),
            )  # fmt: skip
        except ValueError as error:
            if processes().count > 1:  # the others have not failed, and are no longer in step
                raise
            yield RunResult(row, reason=one_line(error))
            continue
        if done is None:
            continue
        setup, made, data = done
        shown = row.study.show(setup, [data])
        write_study(folder, row.study, [made], [data], shown)
        yield RunResult(row, shown)


def _made_with(row: PlannedRun, model: HookedLVLM, request: Request) -> dict[str, Any]:
    """What a study of the row is made with, beside its model, questions and folder."""
    target = row.target
    names = target.methods or row.study.methods
    return {
        "profile": request.profile,
        "pairs": request.pairs if "pairs" in row.study.needs else (),
        "methods": tuple(
            make_method(name, model, request.profile, **request.settings.get(name, {}))
            for name in names
        ),
        "decoding": request.decoding(target, model.family),
        "options": request.options_of(target),
        "batch_size": request.batch_size,
        "seed": request.seed,
    }
