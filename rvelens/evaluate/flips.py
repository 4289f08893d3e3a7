"""Questions that two methods of a run answer differently in being right, and filters of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.rules import strict
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.opened import OpenedRun
from rvelens.evaluate.scoring import read_answers
from rvelens.evaluate.store import stored_answers
from rvelens.files.wording import counted

DIRECTIONS = ("both", "gained", "lost")
ALL = "all"


@dataclass(frozen=True)
class FlipFilter:
    """Which flips to show.

    Attributes:
        method: compared with the run's first one.
        direction: of `DIRECTIONS`.
        group: a group's name, or `ALL`.
        text: a part of the question, the id or an answer, in any case.
    """

    benchmark: str
    method: str
    direction: str = "both"
    group: str = ALL
    text: str = ""


def flips(run: OpenedRun, benchmark: str, method: str) -> list[dict[str, Any]]:
    """Questions that the run's first method and another answer differently in being right.

    Right and wrong are told by the strict rule, whatever the benchmark's own.

    Raises:
        ValueError: a benchmark or method that is not of this run, or torn or missing answers.
    """
    return [dict(row) for row in _flips(run, benchmark, method)]


@lru_cache(maxsize=8)
def _flips(run: OpenedRun, benchmark: str, method: str) -> tuple[dict[str, Any], ...]:
    """The flips, stored for the next filter or search: to read 50,000 answers takes seconds."""
    first = run.methods[0]
    if benchmark not in run.items or method not in run.methods or method == first:
        raise ValueError(
            f"flips of {method!r} on {benchmark!r}: expected a benchmark of {', '.join(run.items)} "
            f"and a method of {', '.join(run.methods[1:]) or 'none'}; choose from these."
        )
    items = tuple(run.items[benchmark].values())
    answers = {name: _whole(run, benchmark, name) for name in (first, method)}
    whole = Benchmark(benchmark, items, (), strict, {})
    numbers = select_askable(whole, answers)
    was, now = (
        read_answers(whole, answers[name], numbers, strict).right for name in (first, method)
    )
    return tuple(
        flip(items[n], answers[first][items[n].id], answers[method][items[n].id], bool(right))
        for n, wrong, right in zip(numbers, ~was, now, strict=True)
        if wrong == right
    )


def _whole(run: OpenedRun, benchmark: str, method: str) -> dict[str, Any]:
    """A method's answers, all that the report counts."""
    answers = stored_answers(run.folder / benchmark / method, tuple(run.items[benchmark].values()))
    rules = run.report["benchmarks"][benchmark]["rules"]
    in_report = sum(next(iter(rules.values()))["methods"][method]["cells"].values())
    if len(answers) < in_report:
        raise ValueError(
            f"{run.folder / benchmark / method} holds {counted(len(answers), 'answer')}: "
            f"expected the {in_report} of the run's report; run the same `rvelens eval` again to "
            "resume."
        )
    return dict(answers)


def matching(flipped: Sequence[Mapping[str, Any]], criteria: FlipFilter) -> list[Mapping[str, Any]]:
    """The flips that fit direction, group and text.

    Raises:
        ValueError: a direction that is not one of `DIRECTIONS`.
    """
    if criteria.direction not in DIRECTIONS:
        raise ValueError(
            f"direction={criteria.direction!r}: expected one of {', '.join(DIRECTIONS)}; correct it."
        )
    text = criteria.text.strip().casefold()

    def fits(row: Mapping[str, Any]) -> bool:
        words = (row["id"], row["question"], row["before"]["answer"], row["after"]["answer"])
        return (
            criteria.direction in ("both", row["direction"])
            and criteria.group in (ALL, row["group"])
            and any(text in (word or "").casefold() for word in words)
        )

    return [item for item in flipped if fits(item)]


def groups(flipped: Sequence[Mapping[str, Any]]) -> list[str]:
    """`ALL`, and the groups of some flips."""
    return [ALL, *sorted({item["group"] for item in flipped if item["group"]})]


def select_askable(
    benchmark: Benchmark, by_method: Mapping[str, Mapping[str, Answer]]
) -> list[int]:
    """Numbers of the questions that could be asked under every method."""
    return [
        n
        for n, item in enumerate(benchmark.items)
        if all(item.id in answer and answer[item.id].error is None for answer in by_method.values())
    ]


def flip(item: Item, before: Answer, after: Answer, gained: bool) -> dict[str, Any]:
    """A question with both answers; `gained` where the later one is right and the earlier wrong."""
    return {
        "id": item.id,
        "group": item.group,
        "question": item.text,
        "truth": item.label,
        "before": {"answer": before.text, "p_yes": _p_yes(before.margin)},
        "after": {"answer": after.text, "p_yes": _p_yes(after.margin)},
        "direction": "gained" if gained else "lost",
    }


def _p_yes(margin: float | None) -> float | None:
    """Probability of yes against no, from their log-odds."""
    if margin is None:
        return None
    return round(1 / (1 + math.exp(-min(max(margin, -50.0), 50.0))), 6)
