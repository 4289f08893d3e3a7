"""The report of a run: methods and benchmarks of this command and of earlier commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.manifest import differences, refuse_differences
from rvelens.evaluate.scoring import score
from rvelens.evaluate.store import refuse_changed, stored_answers
from rvelens.files.stored import MANIFEST, Stored, read_run, read_stored
from rvelens.files.wording import counted
from rvelens.interventions.methods import Method

FILE = "report.json"


class InputCounts(Stored):
    """The rows of a benchmark that could not be asked, and the number of empty answers by method."""

    malformed: list[str]
    unreadable: list[str]
    empty: dict[str, int]


class RunReport(Stored):
    """The report.json of a run."""

    model_config = ConfigDict(extra="allow")

    model: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    decoding: dict[str, dict[str, Any]]
    notes: list[str]
    benchmarks: dict[str, dict[str, Any]]
    input: dict[str, InputCounts]


def read_report(out: Path) -> RunReport | None:
    """The report in the folder of a run; None if there is none yet.

    Raises:
        ValueError: a file of that name that is not a report.
    """
    if not (out / FILE).exists():
        return None
    expected = "the report of `rvelens eval`; name another folder"
    return read_stored(out / FILE, RunReport, expected)


def earlier_methods(
    report: RunReport | None, benchmark: str, methods: Sequence[Method]
) -> list[str]:
    """Methods of a benchmark in a report, other than those of a command."""
    counts = None if report is None else report.input.get(benchmark)
    names = {method.name for method in methods}
    return [] if counts is None else [name for name in counts.empty if name not in names]


def check_goes_with(
    out: Path,
    report: RunReport | None,
    model_is: Mapping[str, Any],
    methods: Sequence[Method],
    made_with: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise ValueError if the report in a folder does not fit a new run.

    Args:
        out: the folder of the run.
        report: what is there.
        model_is: the model of the new run.
        methods: the methods of the new run.
        made_with: for each benchmark, the manifest of one method.
    """
    if report is None:
        return
    refuse_differences(out, {"model": report.model}, {"model": dict(model_is)})
    for method in methods:
        reported = report.methods.get(method.name)
        if reported is not None and (
            change := next(differences(reported, dict(method.parameters)), "")
        ):
            raise ValueError(
                f"{out} reports {method.name} with other parameters ({change}): expected the same "
                "parameters; choose another folder."
            )
    for benchmark, here in made_with.items():
        for name in earlier_methods(report, benchmark, methods):
            folder = out / benchmark / name
            manifest = read_stored(
                folder / MANIFEST, dict, "the manifest of a run; name another folder"
            )
            same = here.keys() - {"method"}
            refuse_differences(
                folder, {k: manifest.get(k) for k in same}, {k: here[k] for k in same}
            )


def merge_reports(
    out: Path,
    report: RunReport | None,
    conditions: Mapping[str, Any],
    benchmarks: Sequence[Benchmark],
    methods: Sequence[Method],
) -> dict[str, Any]:
    """The report of a command, merged with earlier methods and benchmarks.

    If the command includes the earlier first method, the others are compared with the command's first
    method. Otherwise they are compared with the earlier first method.

    Args:
        out: the folder of the run.
        report: what is there.
        conditions: the model, methods, decoding and notes of the command.
        benchmarks, methods: those of the command.
    """
    before = {} if report is None else report.model_dump()
    scores, counts = dict(before.get("benchmarks", {})), dict(before.get("input", {}))
    parameters = {**before.get("methods", {}), **conditions["methods"]}
    for benchmark in benchmarks:
        names = [m.name for m in methods]
        earlier = list(counts[benchmark.name]["empty"]) if benchmark.name in counts else []
        both = [*names, *earlier] if earlier[:1] and earlier[0] in names else [*earlier, *names]
        names = list(dict.fromkeys(both))
        counts[benchmark.name], scored = _of_benchmark(out, benchmark, names)
        if scored is not None:
            scores[benchmark.name] = scored
    order = dict.fromkeys(name for count in counts.values() for name in count["empty"])
    return {
        "model": conditions["model"],
        "methods": {name: parameters[name] for name in order},
        "decoding": {**before.get("decoding", {}), **conditions["decoding"]},
        "notes": list(dict.fromkeys([*before.get("notes", []), *conditions["notes"]])),
        "benchmarks": scores,
        "input": counts,
    }


def _of_benchmark(
    out: Path, benchmark: Benchmark, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What could not be asked, and the figures, None where a judge scores."""
    answers = {name: _whole(out / benchmark.name / name, benchmark) for name in names}
    errors = {answer.error for by_id in answers.values() for answer in by_id.values()}
    counts = {
        "malformed": list(benchmark.problems),
        "unreadable": sorted(error for error in errors if error),
        "empty": {
            name: sum(answer.text == "" for answer in by_id.values())
            for name, by_id in answers.items()
        },
    }
    return counts, score(benchmark, answers) if benchmark.is_scored else None


def _whole(folder: Path, benchmark: Benchmark) -> dict[str, Answer]:
    """A method's answers to every question of a benchmark.

    Raises:
        ValueError: some are missing, or about a picture that was changed since.
    """
    read_run(folder)
    answers = stored_answers(folder, benchmark.items)
    missing = len(benchmark.items) - len(answers)
    if missing:
        raise ValueError(
            f"{folder} lacks {missing} of {counted(len(benchmark.items), 'answer')}: "
            "expected all of them; "
            "run the same command again to resume."
        )
    refuse_changed(folder, benchmark.items, answers)
    return answers
