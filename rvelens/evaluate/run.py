"""Benchmarks under methods, resumable, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.overlap import overlap_notes, published_rankings
from rvelens.evaluate.answering import (
    Answer,
    Decoding,
    answer_items,
    backing_off,
    batches,
    side_by_side,
)
from rvelens.evaluate.manifest import about_model, manifest, settle
from rvelens.evaluate.scoring import score
from rvelens.evaluate.store import AnswerFile, answers_file, read
from rvelens.files import cut_torn_line, locked, write_json
from rvelens.methods import Method
from rvelens.model import HookedLVLM

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


class Alone:
    """The only process there is, with what is used of accelerate's `PartialState`."""

    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        """Nobody to wait for."""


def processes() -> Alone | PartialState:
    """The processes that `accelerate launch` or `torchrun` started, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone()
    # Processes wait for the slowest at the end, which may be hours behind.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))


def evaluate(
    model: HookedLVLM,
    benchmarks: Sequence[Benchmark],
    methods: Sequence[Method],
    out: str | Path,
    *,
    decoding: Decoding | None = None,
    batch_size: int = 8,
    progress: Progress = lambda items, description: items,
) -> dict[str, Any] | None:
    """Ask every benchmark's questions under every method, and score the answers.

    Everything is kept in `out/{benchmark}/{method}`: the manifest first, then answers as they come.
    Called again with the same settings it goes on where it stopped, with the same batches, so that
    the result is the same.

    Args:
        model: the hooked model, without hooks that are on.
        benchmarks: from `rvelens.benchmarks.load_benchmark`.
        methods: from `rvelens.methods.make_method`; the first is what the others are compared with.
        out: folder of the run.
        decoding: prompt, length and seed, the same for all.
        batch_size: questions per forward; halved when memory runs out.
        progress: wraps the iteration over batches, for a progress bar.

    Returns:
        the report that is also in `out/report.json`; None in all but the first of several processes.

    Raises:
        ValueError: the folder holds a run that was made with something else; nothing to run.
    """
    if batch_size < 1 or not benchmarks or not methods:
        raise ValueError(
            f"{len(benchmarks)} benchmarks, {len(methods)} methods, batch_size={batch_size}: expected "
            "at least one of each."
        )
    decoding, out, here = decoding or Decoding(), Path(out), processes()
    model_is = about_model(model)
    settings = {b.name: decoding.settled(b.items) for b in benchmarks}
    folders = {}
    for benchmark in benchmarks:
        for method in methods:
            folder = folders[benchmark.name, method.name] = out / benchmark.name / method.name
            if here.is_main_process:
                made_with = manifest(model, model_is, benchmark, method, settings[benchmark.name])
                settle(folder, made_with)
    here.wait_for_everyone()
    for benchmark in benchmarks:
        decoding_here = settings[benchmark.name]
        for group in side_by_side(model, methods):
            label = f"{benchmark.name}, {', '.join(m.name for m in group)}"
            _answer_all(
                partial(answer_items, model, decoding=decoding_here), benchmark, group,
                [folders[benchmark.name, m.name] for m in group], batch_size, here,
                lambda x, d=label: progress(x, d),
            )  # fmt: skip
    here.wait_for_everyone()
    if not here.is_main_process:
        return None
    asked = {
        "model": model_is,
        "methods": {method.name: dict(method.parameters) for method in methods},
        "decoding": {name: asdict(decoding) for name, decoding in settings.items()},
        "notes": [
            *notes(model, methods, decoding.prompt),
            *overlap_notes(benchmarks, published_rankings(), _ranking(methods)),
        ],
    }
    report = {**asked, **_results(benchmarks, methods, folders)}
    write_json(out / "report.json", report)
    return report


def _answer_all(
    ask: Callable[[Sequence[Method], Sequence[Item]], list[list[Answer]]],
    benchmark: Benchmark,
    methods: Sequence[Method],
    folders: Sequence[Path],
    batch_size: int,
    here: Alone | PartialState,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    """This process' share of the batches, where some of the methods are not done already.

    Raises:
        ValueError: another run is writing into one of the folders.
    """
    mine = batches(benchmark.items, batch_size)[here.process_index :: here.num_processes]
    with ExitStack() as locks:
        files: list[AnswerFile] = []
        for folder in folders:
            path = answers_file(folder, here.process_index)
            locks.enter_context(locked(path.with_suffix(".lock"), folder))
            cut_torn_line(path)
            files.append(AnswerFile(path, read(folder, benchmark.items)))
        # All methods are asked where one lacks an answer: fewer rows side by side round otherwise,
        # and a run that goes on must not differ from one that was never interrupted.
        left = [batch for batch in mine if any(file.lacks(batch) for file in files)]
        size = batch_size
        for batch in progress(left) if left and here.is_main_process else left:
            said, size = backing_off(partial(ask, methods), batch, size)
            for n, file in enumerate(files):
                file.add(batch, [each[n] for each in said])


def notes(model: HookedLVLM, methods: Sequence[Method], prompt: str) -> list[str]:
    """What a reader of the report has to know of these methods under this prompt."""
    names = {method.name for method in methods}
    try:
        ((before, _),) = model.text_around_image(["?"], prompt)
        n_before = len(before)
    except ValueError:  # the processor puts the image before all text
        n_before = 0
    found = []
    if names & {"vaf", "icd"} and n_before < 20:
        found.append(
            f"This prompt has {n_before} tokens before its image, the published one about 35 (a system "
            "prompt): VAF has these few to suppress, and ICD's instruction is added where it would "
            "take the system prompt's place. The preset llava_v1 has one."
        )
    if names & {"vcd", "icd"}:
        found.append(
            "AUC of VCD and ICD is of their logits before the cutoff, which may rule out either answer."
        )
    return found


def _ranking(methods: Sequence[Method]) -> str | None:
    """Digest of the ranking that RVE takes; None without RVE."""
    used = (method.parameters.get("profile") for method in methods)
    return next((digest for digest in used if digest is not None), None)


def _results(
    benchmarks: Sequence[Benchmark],
    methods: Sequence[Method],
    folders: Mapping[tuple[str, str], Path],
) -> dict[str, Any]:
    scores, counts = {}, {}
    for benchmark in benchmarks:
        answers = {m.name: read(folders[benchmark.name, m.name], benchmark.items) for m in methods}
        errors = {said.error for one in answers.values() for said in one.values()}
        counts[benchmark.name] = {
            "malformed": list(benchmark.problems),
            "unreadable": sorted(error for error in errors if error),
            "empty": {
                name: sum(said.text == "" for said in one.values()) for name, one in answers.items()
            },
        }
        if any(item.truth is not None for item in benchmark.items):
            scores[benchmark.name] = score(benchmark, answers)
    return {"benchmarks": scores, "input": counts}
