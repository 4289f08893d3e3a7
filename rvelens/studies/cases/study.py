"""Questions whose answer a method flips, both ways, with what it enhanced (Figures 13 to 17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.flips import flip, select_askable
from rvelens.evaluate.scoring import read_answers
from rvelens.files.wording import counted
from rvelens.hooks import mask_recording_hooks
from rvelens.hooks.enhanced import Masks, rve_of
from rvelens.interventions.methods import Method
from rvelens.studies.cases.page import page
from rvelens.studies.cases.pictures import draw_cases
from rvelens.studies.kit.asking import (
    answers,
    evaluate_methods,
    labels,
    need_labels,
)
from rvelens.studies.kit.base import Batch, Measured, Setup, Shown, Study
from rvelens.studies.kit.work import work_of_all_questions
from rvelens.tables import Cell, Table

_DIRECTIONS = ("gained", "lost")


def _measure(setup: Setup) -> dict[str, Any]:
    """All flips with both answers, a random choice of them, and the tokens enhanced in these.

    Raises:
        ValueError: questions that a judge scores, fewer than two methods, or `against` is none of them.
    """
    need_labels("cases", setup.benchmarks)
    before, after = _two(setup)
    report = evaluate_methods(setup, [before, after])
    return {
        "model": setup.model.name,
        "before": before.name,
        "after": after.name,
        "parameters": report["methods"],
        "n_cases": setup.options["n_cases"],
        "seed": setup.seed,
        "benchmarks": {
            benchmark.name: _of_benchmark(setup, benchmark, before, after, report)
            for benchmark in setup.benchmarks
        },
    }


def _two(setup: Setup) -> tuple[Method, Method]:
    """The method that flips answers, and the one whose answers it flips: vanilla, or the first."""
    named = {method.name: method for method in setup.methods}
    against = setup.options["against"]
    others = [name for name in ("vanilla", *named) if name in named and name != against]
    if against not in named or not others:
        raise ValueError(
            f"study 'cases' with against={against!r} and the methods {', '.join(named) or 'none'}: "
            "expected it among them, and another to compare it with; pass both as methods (--method)."
        )
    return named[others[0]], named[against]


def _of_benchmark(
    setup: Setup, benchmark: Benchmark, before: Method, after: Method, report: Mapping[str, Any]
) -> dict[str, Any]:
    by_method = {m.name: answers(setup, benchmark, m.name) for m in (before, after)}
    numbers = select_askable(benchmark, by_method)
    items = [benchmark.items[n] for n in numbers]
    was, now = (
        read_answers(benchmark, by_method[m.name], numbers, benchmark.rule).right
        for m in (before, after)
    )
    flips = [
        flip(item, by_method[before.name][item.id], by_method[after.name][item.id], bool(right))
        for item, wrong, right in zip(items, ~was, now, strict=True)
        if wrong == right
    ]
    chosen = choose_flips(flips, setup.options["n_cases"], setup.seed)
    scored = report["benchmarks"][benchmark.name]
    pairs = scored["rules"]["official"]["pairs"] if scored["rules"] else [{}]
    return {
        "questions": len(items),
        "left_out": len(benchmark.items) - len(items),
        "right_both": int((was & now).sum()),
        "wrong_both": int((~was & ~now).sum()),
        "mcnemar_p": pairs[0].get("mcnemar_p"),
        "verdict": pairs[0].get("verdict", "no question could be asked"),
        "groups": dict(Counter(item.group for item in items)),
        "flips": flips,
        "chosen": chosen,
        "masks": masks_of(setup, benchmark, chosen, after),
    }


def choose_flips(flips: Sequence[Measured], n: int, seed: int) -> list[str]:
    """Ids of at most `n` random flips of each direction, in the order of the flips."""
    chosen: set[str] = set()
    for number, direction in enumerate(_DIRECTIONS):
        ids = [flip["id"] for flip in flips if flip["direction"] == direction]
        drawn = np.random.default_rng([seed, number]).permutation(len(ids))[: max(n, 0)]
        chosen.update(ids[k] for k in drawn)
    return [flip["id"] for flip in flips if flip["id"] in chosen]


def masks_of(
    setup: Setup, benchmark: Benchmark, chosen: Sequence[str], method: Method
) -> dict[str, Any]:
    """Image tokens that RVE enhanced for the first token of the answer, and that denoising removed.

    By question, then by layer: {"enhanced": numbers, "removed": numbers}. {} for other methods.
    """
    if all(rve_of(hook) is None for _, hook in method.hooks):
        return {}

    def compute(batch: Batch) -> list[Any]:
        if not batch.items:
            return []
        cache: dict[int, Masks] = {}
        inputs = setup.model.prepare(batch.images, batch.texts, setup.decoding.prompt)
        with torch.no_grad(), setup.model.hooks(mask_recording_hooks(method.hooks, cache)):
            setup.model(**inputs, logits_to_keep=1)
        return [
            {
                str(layer): {
                    "enhanced": masks.target[n].nonzero().flatten().tolist(),
                    "removed": masks.removed[n].nonzero().flatten().tolist(),
                }
                for layer, masks in sorted(cache.items())
            }
            for n in range(len(batch.items))
        ]

    items = [item for item in benchmark.items if item.id in set(chosen)]
    return setup.map_items(f"masks-{benchmark.name}", items, compute)


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Counts, all flips as a file, and the page with the chosen ones."""
    (data,) = measured
    (name,) = labels([data["model"]])
    shown = {
        benchmark.name: {
            item.id: draw_cases(
                setup.model, item, data["benchmarks"][benchmark.name]["masks"].get(item.id)
            )
            for item in benchmark.items
            if item.id in set(data["benchmarks"][benchmark.name]["chosen"])
        }
        for benchmark in setup.benchmarks
    }
    tables = {"": _counts(data, name), "flips": _flips(data)}
    return Shown(
        tables, pages={"": page(data, name, shown)}, sentences=tuple(_conclude(data, name))
    )


def _counts(data: Measured, name: str) -> Table:
    rows: list[list[Cell]] = []
    for benchmark, figures in data["benchmarks"].items():
        directions = Counter(flip["direction"] for flip in figures["flips"])
        unchanged = figures["right_both"] + figures["wrong_both"]
        rows.append(
            [benchmark, "all", figures["questions"], directions["gained"], directions["lost"],
             unchanged, figures["mcnemar_p"], figures["verdict"]]
        )  # fmt: skip
        for group, n in sorted(figures["groups"].items()) if len(figures["groups"]) > 1 else []:
            in_group = Counter(f["direction"] for f in figures["flips"] if f["group"] == group)
            rows.append(
                [
                    benchmark,
                    group,
                    n,
                    in_group["gained"],
                    in_group["lost"],
                    n - in_group.total(),
                    None,
                    None,
                ]
            )
    columns = (
        "benchmark", "group", "questions", "gained", "lost", "unchanged", "McNemar p", "verdict",
    )  # fmt: skip
    notes = (
        f"gained: wrong under {data['before']} and right under {data['after']}; lost: the reverse; by "
        "each benchmark's official rule.",
        *(
            f"{benchmark}: {counted(figures['left_out'], 'question')} could not be asked "
            "and are left out."
            for benchmark, figures in data["benchmarks"].items()
            if figures["left_out"]
        ),
    )
    title = f"{name}: answers that {data['after']} flips, against {data['before']}"
    return Table(title, columns, rows, notes=notes)


def _flips(data: Measured) -> Table:
    before, after = data["before"], data["after"]
    rows: list[list[Cell]] = [
        [
            benchmark, flip["id"], flip["group"], flip["question"], flip["truth"],
            flip["direction"], flip["before"]["answer"], flip["after"]["answer"],
            flip["before"]["p_yes"], flip["after"]["p_yes"],
            "yes" if flip["id"] in figures["chosen"] else "no",
        ]
        for benchmark, figures in data["benchmarks"].items()
        for flip in figures["flips"]
    ]  # fmt: skip
    columns = (
        "benchmark", "id", "group", "question", "truth", "flip", before, after,
        f"P(yes) {before}", f"P(yes) {after}", "on the page",
    )  # fmt: skip
    return Table("All flips", columns, rows, aside=True)


def _conclude(data: Measured, name: str) -> Iterator[str]:
    for benchmark, figures in data["benchmarks"].items():
        directions = Counter(flip["direction"] for flip in figures["flips"])
        p = "" if figures["mcnemar_p"] is None else f", McNemar p {figures['mcnemar_p']:.3g}"
        yield (
            f"{name}, {benchmark}: {data['after']} against {data['before']} gains "
            f"{directions['gained']} and loses {directions['lost']} of {figures['questions']} "
            f"answers{p}: {figures['verdict']}."
        )


STUDY = Study(
    "cases",
    "Figures 13-17",
    "questions whose answer a method flips, both ways, with pictures on one page",
    _measure,
    _show,
    methods=("vanilla", "rve"),
    options={"against": "rve", "n_cases": 12},
    work=work_of_all_questions,
)
