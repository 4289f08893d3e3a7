"""Questions asked as `rvelens eval` asks them, for studies that compare methods of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.reports import FILE
from rvelens.evaluate.run import evaluate
from rvelens.evaluate.store import stored_answers
from rvelens.files.atomic import read_json
from rvelens.interventions.methods import Method
from rvelens.studies.kit.base import Setup


def evaluate_methods(setup: Setup, methods: Sequence[Method]) -> dict[str, Any]:
    """The report of `evaluate` for all benchmarks; its answers are kept below the study's parts."""
    report = evaluate(
        setup.model,
        setup.benchmarks,
        methods,
        _folder(setup),
        decoding=setup.decoding,
        batch_size=setup.batch_size,
        progress=setup.progress,
    )
    setup.parts.together()
    if report is None:  # another process has written it
        return read_json(_folder(setup) / FILE)
    return report


def answers(setup: Setup, benchmark: Benchmark, method: str) -> dict[str, Answer]:
    """What was answered to a benchmark's questions under one of the methods that were asked."""
    return stored_answers(_folder(setup) / benchmark.name / method, benchmark.items)


def baseline_first(methods: Sequence[Method]) -> list[Method]:
    """Vanilla before the others, which are compared with it; else the order as it is."""
    return sorted(methods, key=lambda method: method.name != "vanilla")


def need_truths(study: str, benchmarks: Sequence[Benchmark]) -> None:
    """Raise ValueError for a benchmark that does not ask for yes or no."""
    for benchmark in benchmarks:
        if all(item.truth is None for item in benchmark.items):
            raise ValueError(
                f"study {study!r} on {benchmark.name}, which has open-ended questions: expected yes/no "
                "questions; use the study open-ended."
            )


def need_labels(study: str, benchmarks: Sequence[Benchmark]) -> None:
    """Raise ValueError for a benchmark of which no rule tells what answers are right."""
    for benchmark in benchmarks:
        if not benchmark.is_scored:
            raise ValueError(
                f"study {study!r} on {benchmark.name}, which has open-ended questions: expected labels "
                "that a rule reads; take the study open-ended."
            )


def labels(names: Sequence[str]) -> list[str]:
    """Models by the last part of their names, where that tells them apart."""
    short = [name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _folder(setup: Setup) -> Path:
    return setup.parts.folder / "run"
