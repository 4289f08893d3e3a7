"""Metrics of yes/no answers with bootstrap intervals, and paired comparisons of methods.

An answer is yes, no or unparsed. An unparsed answer is wrong whatever the truth is. It reduces
accuracy, and the recall of the class that it should have named. It never counts as a yes or a no.

If labels are other texts (`Benchmark.matches`), an answer is right, wrong or unparsed. Then accuracy is
the only metric, and the others are None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rvelens.benchmarks import Benchmark
from rvelens.benchmarks.rules import Rule, strict
from rvelens.evaluate.answering import Answer
from rvelens.files.arguments import refuse_wrong_types
from rvelens.stats import FEW, Estimate, above, auc, auc_of_draws, draw_counts, mcnemar

# Columns of a table of counts: truth, then answer (x is unparsed).
YES_YES, YES_NO, YES_X, NO_YES, NO_NO, NO_X = range(6)
# The same counts with no as the positive answer.
EXCHANGED = [NO_NO, NO_YES, NO_X, YES_NO, YES_YES, YES_X]
Cells = Float[np.ndarray, "*draw 6"]
_Numbers = np.ndarray | np.floating  # numpy gives a number where an array would have no axis
_Draws = Int[np.ndarray, "draw cluster"]
N_DRAWS = 1000


def _share(part: _Numbers, whole: _Numbers) -> _Numbers:
    """part / whole, NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _accuracy(c: Cells) -> _Numbers:
    """Share of questions answered right."""
    return _share(c[..., YES_YES] + c[..., NO_NO], c.sum(-1))


def precision(c: Cells) -> _Numbers:
    """Share of yes answers that are right."""
    return _share(c[..., YES_YES], c[..., YES_YES] + c[..., NO_YES])


def recall(c: Cells) -> _Numbers:
    """Share of true yes that are answered yes."""
    return _share(c[..., YES_YES], c[..., :NO_YES].sum(-1))


def _f1(c: Cells) -> _Numbers:
    """2 TP / (2 TP + FP + FN); an unparsed answer to a true yes is an FN."""
    hits = 2 * c[..., YES_YES]
    return _share(hits, hits + c[..., NO_YES] + c[..., YES_NO] + c[..., YES_X])


def specificity(c: Cells) -> _Numbers:
    """Share of true no that are answered no."""
    return _share(c[..., NO_NO], c[..., NO_YES:].sum(-1))


def balanced_accuracy(c: Cells) -> _Numbers:
    """Mean of recall and specificity; does not depend on the share of true yes in the benchmark."""
    return (recall(c) + specificity(c)) / 2


def _yes_ratio(c: Cells) -> _Numbers:
    """Share of questions answered yes."""
    return _share(c[..., YES_YES] + c[..., NO_YES], c.sum(-1))


# From the counts of a confusion table, by the names that reports use.
METRICS: Mapping[str, Callable[[Cells], _Numbers]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "balanced_accuracy": balanced_accuracy,
    "yes_ratio": _yes_ratio,
}
# Of labels that are not yes and no: counts of right, wrong and unparsed stand in the first columns.
OF_TEXTS = {"accuracy": _accuracy}
# Metrics that change where no, and not yes, is the positive class.
_OF_CLASS = ("f1", "precision", "recall", "specificity")


@dataclass(frozen=True, eq=False)
class Scored:
    """The answers of one method to the questions that could be asked with every method.

    Attributes:
        truth: whether yes is right; true if labels are other texts.
        cells: 1 in the cell of each question (`YES_YES` ...), and 0 in the others. If labels are other
            texts, right is `YES_YES`, wrong is `YES_NO` and unparsed is `YES_X`.
        margin: log-odds of yes at the first token; NaN if unknown, or if labels are other texts.
        metrics: the metrics that are defined for these labels.
    """

    truth: Bool[np.ndarray, " question"]
    cells: Float[np.ndarray, "question 6"]
    margin: Float[np.ndarray, " question"]
    metrics: Mapping[str, Callable[[Cells], _Numbers]] = field(default_factory=lambda: METRICS)

    @property
    def right(self) -> Bool[np.ndarray, " question"]:
        """Which questions are answered correctly."""
        return self.cells[:, [YES_YES, NO_NO]].sum(axis=1) > 0


def read_answers(
    benchmark: Benchmark, answers: Mapping[str, Answer], indices: Sequence[int], rule: Rule
) -> Scored:
    """Apply a rule to the answers to some of a benchmark's questions.

    If labels are other texts than yes and no, the benchmark's own rule reads the answers.
    """
    items = [benchmark.items[n] for n in indices]
    selected = [answers[item.id] for item in items]
    cells = np.zeros((len(items), 6))
    column = {True: 0, False: 1, None: 2}
    matches = benchmark.matches
    if matches is not None:
        for n, (item, answer) in enumerate(zip(items, selected, strict=True)):
            cells[n, column[matches(answer.text or "", item.reference or "")]] = 1
        return Scored(np.ones(len(items), bool), cells, np.full(len(items), np.nan), OF_TEXTS)
    for n, (item, answer) in enumerate(zip(items, selected, strict=True)):
        cells[n, (0 if item.truth else 3) + column[rule(answer.text or "")]] = 1
    margin = np.array([np.nan if answer.margin is None else answer.margin for answer in selected])
    return Scored(np.array([bool(item.truth) for item in items]), cells, margin)


@refuse_wrong_types
def score(
    benchmark: Benchmark,
    answers: Mapping[str, Mapping[str, Answer]],
    seed: int = 55,
    against: str | None = None,
) -> dict[str, Any]:
    """All metrics of one benchmark: by rule and method, and for each pair of methods.

    Questions that could not be asked with some method are left out for all methods, and counted.

    Args:
        benchmark: questions whose answers a rule scores, see `Benchmark.is_scored`.
        answers: by method, then by question id.
        seed: the seed of the bootstrap.
        against: compare this method with each other one; None for every pair of methods.

    Returns:
        JSON: "questions", "left_out", "rule", "rules" (each with "methods" and "pairs") and, for
        AMBER's other positive class, "positive_no"; intervals are 95% percentile bootstrap over
        photographs.
        "rules" has "official", the benchmark's own rule, and for yes/no questions "strict".
    """
    indices = [
        n
        for n, item in enumerate(benchmark.items)
        if all(item.id in by_id and by_id[item.id].error is None for by_id in answers.values())
    ]
    result: dict[str, Any] = {
        "benchmark": benchmark.name,
        "questions": len(indices),
        "left_out": len(benchmark.items) - len(indices),
        "malformed": len(benchmark.problems),
        "positive": list(benchmark.positives),
        "rule": benchmark.rule_name,
        "rules": {},
    }
    if not indices:
        return result
    source = np.array([benchmark.items[n].source for n in indices])
    _, cluster = np.unique(source, return_inverse=True)
    n_clusters = int(cluster.max()) + 1
    drawn = draw_counts(n_clusters, N_DRAWS, seed)
    groups = _groups(benchmark, indices)
    rules = {"official": benchmark.rule}
    if benchmark.matches is None:
        rules["strict"] = strict
    for name, rule in rules.items():
        scored = {m: read_answers(benchmark, by_id, indices, rule) for m, by_id in answers.items()}
        resampled = {m: _resample(s, cluster, drawn) for m, s in scored.items()}
        result["rules"][name] = {
            "methods": {
                m: _figures(resampled[m], benchmark.positives)
                | {"by_group": _by_group(s, groups), "subsets": _subsets(s, benchmark, indices)}
                for m, s in scored.items()
            },
            "pairs": [
                {"before": a, "after": b, **_compare(resampled[a], resampled[b])}
                for a, b in (
                    combinations(resampled, 2)
                    if against is None
                    else [(against, b) for b in resampled if b != against]
                )
            ],
        }
    return result


def _groups(benchmark: Benchmark, indices: Sequence[int]) -> dict[str, np.ndarray]:
    names = np.array([benchmark.items[n].group for n in indices])
    return {str(name): names == name for name in np.unique(names) if name}


def _by_group(scored: Scored, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: {"n": int(mask.sum()), **_values(scored, mask)} for name, mask in groups.items()}


def _subsets(scored: Scored, benchmark: Benchmark, indices: Sequence[int]) -> dict[str, Any]:
    """Mean of each metric over published lists of question ids, where there are any."""
    ids = np.array([benchmark.items[n].id for n in indices])
    means = {}
    for name, lists in benchmark.subsets.items():
        masks = [np.isin(ids, list(row)) for row in lists]
        figures = [_values(scored, mask) for mask in masks if mask.any()]
        metrics = {m: [x for values in figures if (x := values[m]) is not None] for m in METRICS}
        means[name] = {
            "lists": len(figures),
            **{m: round(float(np.mean(x)), 6) if x else None for m, x in metrics.items()},
        }
    return means


def _values(scored: Scored, mask: Bool[np.ndarray, " question"]) -> dict[str, float | None]:
    """Every metric of some of the questions; None where it is undefined."""
    cells = scored.cells[mask].sum(axis=0)
    return {
        name: _number(metric(cells)) if name in scored.metrics else None
        for name, metric in METRICS.items()
    }


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scored answers, with their counts and AUC in every bootstrap draw."""

    scored: Scored
    n_clusters: int
    total: Float[np.ndarray, " 6"]
    totals: Float[np.ndarray, "draw 6"]
    auc: float
    aucs: Float[np.ndarray, " draw"]


def _resample(scored: Scored, cluster: Int[np.ndarray, " question"], drawn: _Draws) -> Resampled:
    by_cluster = np.zeros((drawn.shape[1], 6))
    np.add.at(by_cluster, cluster, scored.cells)
    area, areas = np.nan, np.full(len(drawn), np.nan)
    if not np.isnan(scored.margin).any():  # else the AUC is unknown
        area = auc(scored.truth, scored.margin)
        parts = np.array_split(drawn.T, 20, axis=1)  # all draws at once take too much memory
        areas = np.concatenate(
            [auc_of_draws(scored.truth, scored.margin, part[cluster]) for part in parts]
        )
    total = scored.cells.sum(axis=0)
    return Resampled(scored, drawn.shape[1], total, drawn @ by_cluster, area, areas)


def _figures(method: Resampled, positives: Sequence[str]) -> dict[str, Any]:
    """Every metric with its interval, counts of cells, and AUC of the margins."""
    total, totals = method.total, method.totals
    figures: dict[str, Any] = {
        name: _estimate(metric(total), metric(totals)) if name in method.scored.metrics else None
        for name, metric in METRICS.items()
    }
    if "no" in positives:
        figures["positive_no"] = {
            name: _estimate(METRICS[name](total[EXCHANGED]), METRICS[name](totals[:, EXCHANGED]))
            for name in _OF_CLASS
        }
    names = ("yes_yes", "yes_no", "yes_unparsed", "no_yes", "no_no", "no_unparsed")
    return figures | {
        "auc": _estimate(method.auc, method.aucs),
        "unparsed": int(total[YES_X] + total[NO_X]),
        "cells": {name: int(n) for name, n in zip(names, total, strict=True)},
    }


def _compare(before: Resampled, after: Resampled) -> dict[str, Any]:
    """Paired differences, after minus before, on the same draws; and McNemar's exact test."""
    changes = {
        name: _estimate(
            METRICS[name](after.total) - METRICS[name](before.total),
            METRICS[name](after.totals) - METRICS[name](before.totals),
        )
        if name in after.scored.metrics
        else None
        for name in ("accuracy", "f1", "balanced_accuracy", "yes_ratio")
    }
    changes["auc"] = _estimate(after.auc - before.auc, after.aucs - before.aucs)
    was, is_now = before.scored.right, after.scored.right
    gained, lost = int((is_now & ~was).sum()), int((was & ~is_now).sum())
    p = mcnemar(gained, lost)
    conclusion = verdict(changes, p, before.n_clusters)
    return {
        "gained": gained,
        "lost": lost,
        "mcnemar_p": p,
        "change": changes,
        "verdict": conclusion,
    }


def verdict(changes: Mapping[str, Any], p: float, n_photographs: int) -> str:
    """The confirmed changes of a method, in words.

    A change of accuracy is confirmed if its interval excludes 0 and McNemar's p is below .05. A change
    of another metric is confirmed if its interval excludes 0.

    Args:
        changes: estimates by metric; None if undefined.
        p: the p-value of McNemar's test.
        n_photographs: the number of resampled photographs; below `FEW`, an interval says little.
    """
    if n_photographs < FEW:
        return "too few photographs to say"
    more = {
        "accuracy": ("less accurate", "more accurate"),
        "auc": ("AUC falls", "AUC rises"),
        "balanced_accuracy": ("balanced accuracy falls", "balanced accuracy rises"),
    }
    signs = {name: _sign(changes[name]) for name in more}
    signs["accuracy"] *= p < 0.05
    clauses = [words[sign > 0] for name, words in more.items() if (sign := signs[name])]
    ratio = _sign(changes["yes_ratio"])
    if not ratio:
        return "; ".join(clauses) or "no change confirmed"
    ratio_clause = f"says yes {'more' if ratio > 0 else 'less'} often"
    return (
        "; ".join([*clauses, ratio_clause])
        if clauses
        else f"{ratio_clause}, and no other change is confirmed"
    )


def _sign(estimate: Mapping[str, float] | None) -> int:
    """1 or -1 where the whole interval lies on one side of 0."""
    return 0 if estimate is None else {True: 1, False: -1, None: 0}[above(estimate)]


def _estimate(value: Any, draws: Any) -> dict[str, float] | None:
    """Value with its interval; None where it is undefined."""
    return Estimate.from_draws(float(value), draws).to_json_or_none()


def _number(value: Any) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
