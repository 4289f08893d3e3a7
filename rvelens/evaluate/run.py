"""Runs benchmarks with methods, resumable, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.own import read_questions, warn_of_left_out
from rvelens.evaluate.answering import (
    Answer,
    Decoding,
    answer_items,
    backing_off,
    batches,
    side_by_side,
)
from rvelens.evaluate.manifest import about_model, check_manifest, make_manifest
from rvelens.evaluate.processes import Processes, at_work, meet, processes, wait_for_others
from rvelens.evaluate.render import to_markdown
from rvelens.evaluate.reports import FILE, check_goes_with, merge_reports, read_report
from rvelens.evaluate.store import AnswerFile, answers_file, refuse_changed, stored_answers
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import as_json, cut_torn_line, locked, write_json, write_text
from rvelens.files.paths import remove_if_refused
from rvelens.files.wording import counted
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.pairs.overlap import overlap_notes, published_rankings

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@refuse_wrong_types
def evaluate(
    model: HookedLVLM,
    benchmarks: Sequence[Benchmark] = (),
    methods: Sequence[Method] = (),
    out: str | Path = "",
    *,
    questions: Any = None,
    images: str | Path | None = None,
    decoding: Decoding | None = None,
    batch_size: int = 8,
    progress: Progress = lambda items, description: items,
) -> dict[str, Any] | None:
    """Ask the questions of every benchmark with every method, and score the answers.

    Everything is stored in `out/{benchmark}/{method}`: first the manifest, then answers as they come. A
    second call with the same arguments resumes with the same batches, so the result is the same. A call
    with other methods or benchmarks adds them to the report.

    Args:
        model: the hooked model, without active hooks.
        benchmarks: from `rvelens.benchmarks.load_benchmark`, or `load_questions`.
        methods: from `rvelens.interventions.methods.make_method`; the others are compared with the
            first.
        out: the folder of the run.
        questions: your own questions, instead of benchmarks or in addition: a file, a pandas data
            frame, or another source for `rvelens.benchmarks.load_questions`.
        images: the folder of their pictures.
        decoding: prompt, length and seed, the same for all methods.
        batch_size: questions per forward; halved when memory runs out.
        progress: wraps the iteration over batches, for a progress bar.

    Returns:
        the report, which is also written to `out/report.json` and, for reading, to `out/report.md`.
        With several processes, only the first returns it, and the others return None.

    Raises:
        ValueError: the folder holds a run with other conditions; a method whose code cannot be
            identified; nothing to run; another process that failed or was killed.
    """
    if questions is not None:
        own = read_questions(questions, images)
        warn_of_left_out(own)
        benchmarks = [*benchmarks, own]
    if batch_size < 1 or not benchmarks or not methods:
        raise ValueError(
            f"{counted(len(benchmarks), 'benchmark')}, {counted(len(methods), 'method')}, "
            f"batch_size={batch_size}: "
            "expected at least one of each; pass what is missing."
        )
    if out == "":
        raise ValueError("a run without out: expected a folder for its answers; choose one.")
    _check_names("benchmark", [b.name for b in benchmarks])
    _check_names("method", [m.name for m in methods])
    decoding, out, here = decoding or Decoding(), Path(out), processes()
    model_is = about_model(model)
    settings = {b.name: decoding.settled(b.items) for b in benchmarks}
    with remove_if_refused(out, alone=here.count == 1), at_work(out, here):
        if here.is_first:
            _settle_all(model, model_is, benchmarks, methods, settings, out, here.count)
        meet(here)
        for benchmark in benchmarks:
            for group in side_by_side(model, methods):
                label = f"{benchmark.name}, {', '.join(m.name for m in group)}"
                _answer_all(
                    partial(answer_items, model, decoding=settings[benchmark.name]), benchmark, group,
                    [out / benchmark.name / m.name for m in group], batch_size, here,
                    lambda x, d=label: progress(x, d),
                )  # fmt: skip
    if not here.is_first:
        return None
    wait_for_others(out, here)
    conditions = {
        "model": model_is,
        "methods": {method.name: dict(method.parameters) for method in methods},
        "decoding": {name: asdict(decoding) for name, decoding in settings.items()},
        "notes": [
            *notes(model, methods, decoding.prompt),
            *overlap_notes(benchmarks, published_rankings(), _ranking(methods)),
        ],
    }
    with locked(out / "report.lock", out / FILE, wait=True):
        report = merge_reports(out, read_report(out), conditions, benchmarks, methods)
        write_json(out / FILE, report)
        write_text(out / "report.md", to_markdown(report))
    return report


def _check_names(kind: str, names: Sequence[str]) -> None:
    """Raise ValueError for a name that is no folder's, or that two methods or benchmarks have."""
    for name in names:
        if name in ("", ".", "..") or PurePath(name).name != name or "\\" in name or "\0" in name:
            raise ValueError(
                f"the {kind} name {name!r}: expected a name that a folder can have; rename it."
            )
        if names.count(name) > 1:
            raise ValueError(
                f"two {kind}s are named {name!r}: expected different names; rename one."
            )


def _settle_all(
    model: HookedLVLM,
    model_is: Mapping[str, Any],
    benchmarks: Sequence[Benchmark],
    methods: Sequence[Method],
    settings: Mapping[str, Decoding],
    out: Path,
    n_processes: int,
) -> None:
    """Write or compare every manifest, before the first question.

    Raises:
        ValueError: the folder holds a run that was made with something else.
    """
    made_with = {
        (b.name, m.name): as_json(make_manifest(model, model_is, b, m, settings[b.name]))
        for b in benchmarks
        for m in methods
    }
    first = {b.name: made_with[b.name, methods[0].name] for b in benchmarks}
    check_goes_with(out, read_report(out), model_is, methods, first)
    names = [answers_file(out, rank).name for rank in range(n_processes)]
    for (benchmark, method), made in made_with.items():
        check_manifest(out / benchmark / method, made, names)


def _answer_all(
    ask: Callable[[Sequence[Method], Sequence[Item]], list[list[Answer]]],
    benchmark: Benchmark,
    methods: Sequence[Method],
    folders: Sequence[Path],
    batch_size: int,
    here: Processes,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    """This process' share of the batches, where some of the methods are not done already.

    Raises:
        ValueError: another run is writing into one of the folders, or a picture was changed.
    """
    mine = batches(benchmark.items, batch_size)[here.rank :: here.count]
    with ExitStack() as locks:
        files: list[AnswerFile] = []
        for folder in folders:
            path = answers_file(folder, here.rank)
            locks.enter_context(locked(path.with_suffix(".lock"), folder))
            cut_torn_line(path)
            stored = stored_answers(folder, benchmark.items)
            refuse_changed(folder, benchmark.items, stored)
            files.append(AnswerFile(path, stored))
        # All methods are asked where one lacks an answer: fewer rows side by side round otherwise,
        # and a run that goes on must not differ from one that was never interrupted.
        missing = [batch for batch in mine if any(file.lacks(batch) for file in files)]
        size = batch_size
        for batch in progress(missing) if missing and here.is_first else missing:
            rows, size = backing_off(partial(ask, methods), batch, size)
            for n, file in enumerate(files):
                file.add(batch, [row[n] for row in rows])


def notes(model: HookedLVLM, methods: Sequence[Method], prompt: str) -> list[str]:
    """Notes for the report about these methods with this prompt."""
    names = {method.name for method in methods}
    try:
        ((before, _),) = model.text_around_image(["?"], prompt)
        n_before = len(before)
    except ValueError:  # the processor puts the image before all text
        n_before = 0
    texts = []
    if names & {"vaf", "icd"} and n_before < 20:
        texts.append(
            f"This prompt has {n_before} tokens before its image, the published one about 35 (a system "
            "prompt): VAF has these few to suppress, and ICD's instruction is added where it would "
            "take the system prompt's place. The preset llava_v1 has one."
        )
    if names & {"vcd", "icd"}:
        texts.append(
            "AUC of VCD and ICD is of their logits before the cutoff, which may rule out either answer."
        )
    return texts


def _ranking(methods: Sequence[Method]) -> str | None:
    """Digest of the ranking that RVE takes; None without RVE."""
    used = (method.parameters.get("profile") for method in methods)
    return next((digest for digest in used if digest is not None), None)
