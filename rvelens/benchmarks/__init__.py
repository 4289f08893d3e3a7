"""Benchmarks: questions with known answers, loaded by name, or your own."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rvelens.benchmarks import amber, mmrel, pope, rbench, scenes
from rvelens.benchmarks.base import RELATIONS, Benchmark, Item
from rvelens.benchmarks.own import load_questions
from rvelens.benchmarks.published import sources
from rvelens.files.arguments import refuse_wrong_types

__all__ = ["BENCHMARKS", "RELATIONS", "Benchmark", "Item", "load_benchmark", "load_questions"]

# Name to a function of the data folder, with what options that benchmark has as keywords.
BENCHMARKS: Mapping[str, Callable[..., Benchmark]] = {
    "pope-random": partial(pope.load_pope, "random"),
    "pope-popular": partial(pope.load_pope, "popular"),
    "pope-adversarial": partial(pope.load_pope, "adversarial"),
    "amber-relation": partial(amber.load_amber, "relation"),
    "amber-existence": partial(amber.load_amber, "existence"),
    "rbench-image": partial(rbench.load_rbench, "image"),
    "rbench-instance-box": partial(rbench.load_rbench, "instance-box"),
    "rbench-instance-mask": partial(rbench.load_rbench, "instance-mask"),
    "mmrel-real": partial(mmrel.load_mmrel, "real"),
    "mmrel-dalle": partial(mmrel.load_mmrel, "dalle"),
    "mmrel-open": partial(mmrel.load_mmrel, "open"),
    "action-scenes": scenes.load_scenes,
    "action-scenes-turns": scenes.load_turns,
    "action-scenes-open": scenes.load_open,
}


@refuse_wrong_types
def load_benchmark(
    name: str, data: str | Path | None = None, *, limit: int | None = None, **options: Any
) -> Benchmark:
    """A benchmark by its name.

    Args:
        name: one of `BENCHMARKS`.
        data: the folder with its files, which the docstring of each loader lists; "hub" for a copy on
            the Hugging Face Hub (`rvelens.benchmarks.hub`); not needed for action scenes.
        limit: the size of a random sample of questions, the same in every run.
        options: `relation` ("all", "action" or "spatial") for R-Bench and MMRel; `split`, `n` and
            `seed` for action scenes, and `turns` for action scenes with earlier turns.

    Raises:
        ValueError: an unknown benchmark or option, a missing folder or file, a file that cannot be
            read. A malformed row is not an error, but one of the benchmark's `problems`.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"benchmark {name!r}: expected one of {', '.join(BENCHMARKS)}; did you mean {near!r}?"
        )
    loader = BENCHMARKS[name]
    parameters = inspect.signature(loader).parameters.values()
    option_names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] + ["limit"]
    for option in options:
        if option not in option_names:
            raise ValueError(
                f"{name} has no option {option!r}: expected {', '.join(option_names)}; leave it out."
            )
    if data == "hub" and sources(name):
        from rvelens.benchmarks import hub  # it brings libraries that a folder does not need

        benchmark = hub.load_from_hub(name)
        return benchmark if limit is None else benchmark.sample(limit)
    data = None if data == "hub" else data
    if data is not None and not Path(data).is_dir():
        raise ValueError(
            f"no folder {data}: expected the folder with the files of {name}; check the path."
        )
    benchmark = loader(None if data is None else Path(data), **options)
    if not benchmark.items:
        first = benchmark.problems[0] if benchmark.problems else "no row"
        raise ValueError(
            f"{name} has no usable question below {data}: expected at least one; {first}"
        )
    return benchmark if limit is None else benchmark.sample(limit)
