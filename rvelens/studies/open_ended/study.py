"""Open-ended answers, scored by a judge or by exact match (Table 2)."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.flips import select_askable
from rvelens.files.paths import slug
from rvelens.files.wording import counted
from rvelens.judge.endpoint import Endpoint, connect
from rvelens.judge.open_ended import PROMPT_VERSION, judge
from rvelens.judge.open_ended import JudgedItem as Judged
from rvelens.plots import ScoreRow, dots
from rvelens.stats import bootstrap
from rvelens.studies.kit.asking import (
    answers,
    baseline_first,
    evaluate_methods,
    labels,
)
from rvelens.studies.kit.base import Measured, Setup, Shown, Study, iterate
from rvelens.studies.kit.work import work_of_all_questions
from rvelens.studies.open_ended.paper import (
    compare_table2,
    open_ended_cells,
    paper_cell,
    scored_groups,
)
from rvelens.tables import Cell, Table

# Scores of the answers to a benchmark's questions; NaN where there is none.
Scores = Float[np.ndarray, " question"]
EXACT = "exact match, no judge"
_ROLES = {"vanilla": "plain", "rve": "rve"}


def _measure(setup: Setup) -> dict[str, Any]:
    """Answers under every method, scored, and paired differences from the first.

    Raises:
        ValueError: yes/no questions; references that only a judge can compare, and no judge; a judge
            that cannot be reached.
    """
    name = setup.options["judge_model"]
    _check(setup.benchmarks, name)
    methods = baseline_first(setup.methods)
    report = evaluate_methods(setup, methods)
    if setup.options["judge_model"]:
        setup.leave_to_first()  # that asks the judge
    return {
        "model": setup.model.name,
        "methods": [method.name for method in methods],
        "scored_by": f"judge {name}, prompt version {PROMPT_VERSION}" if name else EXACT,
        "judge": name,
        "notes": report["notes"],
        "benchmarks": {
            benchmark.name: _scored(setup, benchmark, [method.name for method in methods])
            for benchmark in setup.benchmarks
        },
    }


def _check(benchmarks: Sequence[Benchmark], judge_model: str) -> None:
    """Raise ValueError for what could not be scored, before anything is asked."""
    for benchmark in benchmarks:
        references = [item.reference for item in benchmark.items]
        if None in references:
            raise ValueError(
                f"study 'open-ended' on {benchmark.name}, which has yes/no questions: expected "
                "open-ended questions; use the study main-table."
            )
        refuse_without_judge(benchmark, judge_model)
    if judge_model:
        with connect(Endpoint(judge_model)):  # says at once what is missing
            pass


def refuse_without_judge(benchmark: Benchmark, judge_model: str) -> None:
    """Raise ValueError for references that exact match cannot compare, where there is no judge."""
    references = [item.reference or "" for item in benchmark.items]
    longer = [text for text in references if len(text.split()) != 1]
    if longer and not judge_model:
        raise ValueError(
            f"{benchmark.name} without a judge: expected one, since its references are longer than "
            f"one word ({longer[0]!r}); pass --option judge_model=MODEL and set OPENAI_API_KEY."
        )


def _scored(setup: Setup, benchmark: Benchmark, methods: Sequence[str]) -> dict[str, Any]:
    """Figures of all questions and of each group; and what could not be scored, by method."""
    by_method = {m: answers(setup, benchmark, m) for m in methods}
    numbers = select_askable(benchmark, by_method)
    if not numbers:
        return {"questions": 0, "left_out": len(benchmark.items), "unscored": {}, "groups": {}}
    askable = benchmark.keep([benchmark.items[n] for n in numbers])
    scores, unscored = {}, {}
    for method in methods:
        scores[method], unscored[method] = _scores(setup, askable, by_method[method], method)
    whole = ~np.isnan(np.stack(list(scores.values()))).any(axis=0)
    group = np.array([item.group for item in askable.items])
    among = {"all": whole} | {str(g): whole & (group == g) for g in np.unique(group) if g}
    source = np.array([item.source for item in askable.items])
    return {
        "questions": len(numbers),
        "left_out": len(benchmark.items) - len(numbers),
        "unscored": unscored,
        "groups": {
            name: _figures({m: s[mask] for m, s in scores.items()}, source[mask], setup.seed)
            for name, mask in among.items()
        },
    }


def _scores(
    setup: Setup, benchmark: Benchmark, by_id: Mapping[str, Answer], method: str
) -> tuple[Scores, dict[str, Any]]:
    """One method's scores, and how many answers have none, with the first reason."""
    texts = [by_id[item.id].text or "" for item in benchmark.items]
    if not setup.options["judge_model"]:
        right = [
            exactly(text, item.reference or "")
            for text, item in zip(texts, benchmark.items, strict=True)
        ]
        return np.array(right, dtype=float), {"unreadable": 0, "failed": 0, "reason": None}
    label = f"judging {benchmark.name}, {method}"
    judgements = judge(
        [
            Judged(item.id, item.text, item.reference or "", text, item.group)
            for text, item in zip(texts, benchmark.items, strict=True)
        ],
        Endpoint(setup.options["judge_model"]),
        cache_dir=setup.parts.folder / "judge",
        concurrency=setup.options["judge_concurrency"],
        progress=iterate(setup.progress, label),
    )
    failed = [judgement for judgement in judgements if judgement.text is None]
    if len(failed) == len(judgements):
        raise ValueError(
            f"the judge gave no score to any of {counted(len(judgements), 'answer')} "
            f"({failed[0].reason}): "
            "expected at least one; run the same command again when the judge can be reached."
        )
    return np.array([np.nan if x.score is None else x.score for x in judgements]), {
        "unreadable": sum(judgement.score is None for judgement in judgements) - len(failed),
        "failed": len(failed),
        "reason": next((judgement.reason for judgement in judgements if judgement.reason), None),
    }


def exactly(answer: str, reference: str) -> bool:
    """Whether the first word of an answer is the reference, whatever the case and punctuation."""
    first = (answer.split() or [""])[0]
    return bool(first) and _bare(first) == _bare(reference)


def _bare(word: str) -> str:
    return word.strip().strip(string.punctuation).casefold()


def _figures(scores: Mapping[str, Scores], source: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean score of each method and its paired difference from the first, over the same questions.

    Intervals are 95% bootstrap over photographs.
    """
    first, *others = scores
    n = len(source)
    if not n:
        return {"n": 0, "photographs": 0, "mean": dict.fromkeys(scores), "difference": {}}

    def mean(values: Scores) -> dict[str, float]:
        return bootstrap(lambda i: float(values[i].mean()), source_number, seed=seed).to_json()

    source_number = np.unique(source, return_inverse=True)[1]
    return {
        "n": n,
        "photographs": int(source_number.max()) + 1,
        "mean": {method: mean(values) for method, values in scores.items()},
        "difference": {method: mean(scores[method] - scores[first]) for method in others},
    }


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Scores by model, benchmark, group and method; beside Table 2 where a judge gave them."""
    names = labels([data["model"] for data in measured])
    tables = {"": _scores_table(measured, names)}
    if all(data["judge"] for data in measured):
        tables["table2"] = compare_table2(measured)
    figures = {
        slug(name) if len(names) > 1 else "": _figure(data, name, rows)
        for data, name in zip(measured, names, strict=True)
        if (rows := list(_rows(data)))
    }
    return Shown(tables, figures, {}, tuple(_conclude(measured, names)), open_ended_cells(measured))


def _scores_table(measured: Sequence[Measured], names: Sequence[str]) -> Table:
    first = measured[0]["methods"][0]
    change = f"difference from {first}"
    rows: list[list[Cell]] = [
        [name, benchmark, group, method, figures["n"], mean, figures["difference"].get(method)]
        for data, name in zip(measured, names, strict=True)
        for benchmark, group, figures in scored_groups(data)
        for method, mean in figures["mean"].items()
    ]
    columns = ("model", "benchmark", "group", "method", "answers", "score", change)
    by = measured[0]["scored_by"]
    title = f"Mean score from 0 to 10 ({by})" if measured[0]["judge"] else f"Share right ({by})"
    return Table(title, columns, rows, frozenset({change}), tuple(_notes(measured, names)))


def _notes(measured: Sequence[Measured], names: Sequence[str]) -> Iterator[str]:
    if not measured[0]["judge"]:
        yield (
            "Right: the first word of the answer is the reference, whatever the case and punctuation. "
            "These shares are not the paper's scores, which a judge gave."
        )
    for data, name in zip(measured, names, strict=True):
        for benchmark, result in data["benchmarks"].items():
            if result["left_out"]:
                left_out = counted(result["left_out"], "question")
                yield f"{name}, {benchmark}: {left_out} could not be asked."
            for method, counts in result["unscored"].items():
                if counts["reason"] is not None:
                    yield (
                        f"{name}, {benchmark}, {method}: {counts['unreadable']} scores unreadable, "
                        f"{counts['failed']} requests failed ({counts['reason']}); these questions are "
                        "left out for every method."
                    )
        yield from data["notes"]


def _rows(data: Measured) -> Iterator[ScoreRow]:
    for benchmark, group, figures in scored_groups(data):
        for method, mean in figures["mean"].items():
            cell = paper_cell(data, benchmark, group, method) if data["judge"] else None
            yield ScoreRow(
                method, **mean, group=f"{benchmark}: {group}", role=_ROLES.get(method, "control"),
                paper=float("nan") if cell is None else cell.value,
            )  # fmt: skip


def _figure(data: Measured, name: str, rows: Sequence[ScoreRow]) -> Figure:
    label = "judge's mean score, 0 to 10" if data["judge"] else f"share right ({EXACT})"
    return dots(rows, x_label=label, baseline=data["methods"][0], title=name)


def _conclude(measured: Sequence[Measured], names: Sequence[str]) -> Iterator[str]:
    for data, name in zip(measured, names, strict=True):
        first, by = data["methods"][0], data["scored_by"]
        for benchmark, group, figures in scored_groups(data):
            for method, change in figures["difference"].items():
                verdict = "no change that these questions confirm"
                if figures["photographs"] < 20:
                    verdict = "too few photographs to say"
                elif change["low"] > 0 or change["high"] < 0:
                    verdict = "better" if change["low"] > 0 else "worse"
                interval = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
                yield (
                    f"{name}, {benchmark}, {group}: {method} against {first}: {verdict} "
                    f"({interval}; {by})."
                )


STUDY = Study(
    "open-ended",
    "Table 2",
    "open-ended answers, scored by a judge, or by exact match with one-word references",
    _measure,
    _show,
    benchmarks=("action-scenes-open",),
    methods=("vanilla", "rve"),
    options={"judge_model": "", "judge_concurrency": 8},
    several=True,
    work=work_of_all_questions,
)
