"""Methods by benchmarks by models, beside the paper's main results (Tables 1, 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.flips import select_askable
from rvelens.evaluate.scoring import METRICS, N_DRAWS, read_answers
from rvelens.files.paths import slug
from rvelens.files.wording import counted
from rvelens.interventions.methods import METHODS
from rvelens.plots import ScoreRow, dots
from rvelens.stats import Estimate, draw_counts
from rvelens.studies.kit.asking import (
    answers,
    baseline_first,
    evaluate_methods,
    labels,
    need_truths,
)
from rvelens.studies.kit.base import Measured, Setup, Shown, Study
from rvelens.studies.kit.work import work_of_all_questions
from rvelens.studies.main_table.paper import compare_tables, main_table_cells, paper_value
from rvelens.tables import Cell, Table

# What is told of each method besides accuracy and F1, and how it is called.
MORE = {
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "auc": "AUC",
    "yes_ratio": "yes-ratio",
}


def _measure(setup: Setup) -> dict[str, Any]:
    """Every benchmark asked under every method, scored, with the pairs of methods compared.

    Raises:
        ValueError: a benchmark of open-ended questions, or no method.
    """
    need_truths("main-table", setup.benchmarks)
    methods = baseline_first(setup.methods)
    report = evaluate_methods(setup, methods)
    names = [method.name for method in methods]
    means = {
        benchmark.name: over_lists(
            benchmark, {m: answers(setup, benchmark, m) for m in names}, setup.seed
        )
        for benchmark in setup.benchmarks
    }
    return {
        "model": setup.model.name,
        "methods": names,
        "relations": {benchmark.name: benchmark.relation for benchmark in setup.benchmarks},
        "over_lists": means,
        "report": report,
    }


def over_lists(
    benchmark: Benchmark, by_method: Mapping[str, Mapping[str, Answer]], seed: int
) -> dict[str, Any]:
    """Mean accuracy and F1 over the published lists of questions, by method; {} without lists.

    Intervals are 95% bootstrap over photographs; a draw's lists are what it holds of each list.
    """
    numbers = select_askable(benchmark, by_method)
    items = [benchmark.items[n] for n in numbers]
    lists = [ids for many in benchmark.subsets.values() for ids in many]
    among = np.array([[item.id in row for item in items] for row in lists], dtype=float)
    if not among.any():
        return {}
    among = among[among.any(axis=1)]
    photographs, cluster = np.unique([item.source for item in items], return_inverse=True)
    n = len(photographs)
    drawn = draw_counts(n, N_DRAWS, seed)
    figures: dict[str, Any] = {"lists": len(among)}
    for method, by_id in by_method.items():
        cells = read_answers(benchmark, by_id, numbers, benchmark.rule).cells
        by_cluster = np.zeros((n, len(among), 6))
        np.add.at(by_cluster, cluster, among.T[:, :, None] * cells[:, None])
        totals = np.tensordot(drawn, by_cluster, axes=1)
        figures[method] = {
            metric: _mean_over_lists(METRICS[metric], by_cluster.sum(axis=0), totals)
            for metric in ("accuracy", "f1")
        }
    return figures


def _mean_over_lists(
    metric: Callable[[Any], Any],
    total: Float[np.ndarray, "list 6"],
    totals: Float[np.ndarray, "draw list 6"],
) -> dict[str, float] | None:
    """Mean of a metric of counts over the lists that have one, with its interval."""

    def mean(values: Float[np.ndarray, "*draw list"]) -> Float[np.ndarray, "*draw"]:
        is_finite = np.isfinite(values)
        n = is_finite.sum(axis=-1)
        return np.where(is_finite, values, 0).sum(axis=-1) / np.where(n, n, np.nan)

    value = float(mean(metric(total)[None])[0])
    return Estimate.from_draws(value, mean(metric(totals))).to_json_or_none()


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Accuracy and F1, changes against the baseline, other metrics; and the paper's numbers."""
    names = labels([data["model"] for data in measured])
    tables = {
        "": _accuracies(measured, names),
        "changes": _changes(measured, names),
        "more": _more(measured, names),
        **compare_tables(measured),
    }
    figures = {
        slug(name) if len(names) > 1 else "": _figure(data, name)
        for data, name in zip(measured, names, strict=True)
        if any(True for _ in _results(data))
    }
    return Shown(tables, figures, {}, tuple(_conclude(measured, names)), main_table_cells(measured))


def _results(data: Measured) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Benchmarks of which some question could be asked, with what their official rule finds."""
    for name, result in data["report"]["benchmarks"].items():
        if result["rules"]:
            yield name, result["rules"]["official"]


def _accuracies(measured: Sequence[Measured], names: Sequence[str]) -> Table:
    """A row for each benchmark and method; columns by model."""
    several = len(measured) > 1
    lists = any(
        data["over_lists"].values() for data in measured if any(data["over_lists"].values())
    )
    measures = ["accuracy", "F1", *(["mean over lists"] if lists else []), "best"]
    columns = [
        f"{name}: {measure}" if several else measure for name in names for measure in measures
    ]
    rows: list[list[Cell]] = []
    for benchmark in measured[0]["relations"]:
        for method in measured[0]["methods"]:
            row: list[Cell] = [benchmark, method]
            for data in measured:
                row += _accuracy_cells(data, benchmark, method, lists)
            rows.append(row)
    title = "Accuracy and F1 (official rules, yes is positive)"
    title = title if several else f"{names[0]}: {title[0].lower()}{title[1:]}"
    return Table(title, ("benchmark", "method", *columns), rows, notes=_notes(measured, names))


def _accuracy_cells(data: Measured, benchmark: str, method: str, lists: bool) -> list[Cell]:
    result = dict(_results(data)).get(benchmark)
    figures = result["methods"][method] if result else {}
    f1 = figures.get("f1")
    cells: list[Cell] = [figures.get("accuracy"), f1 and f1["value"]]
    if lists:
        cells.append(data["over_lists"][benchmark].get(method, {}).get("accuracy"))
    leads = [
        label
        for label, metric in (("accuracy", "accuracy"), ("F1", "f1"))
        if result and confirmed_best(result, metric) == method
    ]
    return [*cells, ", ".join(leads)]


def confirmed_best(result: Measured, metric: str) -> str | None:
    """The method with the highest value, if its lead over the second is confirmed.

    Confirmed means that the interval of their paired difference excludes 0 and, for accuracy, that
    McNemar's p is below .05.

    Args:
        result: of one rule, as `rvelens.evaluate.score` gives it.
        metric: "accuracy" or "f1".
    """
    values = {m: x[metric]["value"] for m, x in result["methods"].items() if x[metric] is not None}
    if len(values) < 2:
        return None
    first, second = sorted(values, key=lambda name: -values[name])[:2]
    pair = next(p for p in result["pairs"] if {p["before"], p["after"]} == {first, second})
    change = pair["change"][metric]
    if change is None or pair["verdict"].startswith("too few"):
        return None
    ahead = change["low"] > 0 if pair["after"] == first else change["high"] < 0
    sure = metric != "accuracy" or pair["mcnemar_p"] < 0.05
    return first if ahead and sure else None


def _notes(measured: Sequence[Measured], names: Sequence[str]) -> tuple[str, ...]:
    """What was asked, and what was left out."""
    notes = [
        "best: ahead of the second by a paired difference whose interval excludes 0 (accuracy: and "
        "McNemar's p below .05)."
    ]
    if any(any(data["over_lists"].values()) for data in measured):
        notes.append("mean over lists: accuracy as R-Bench counts it, over its published id lists.")
    for benchmark, relation in measured[0]["relations"].items():
        n = [str(data["report"]["benchmarks"][benchmark]["questions"]) for data in measured]
        counts = n[0] if len(set(n)) == 1 else " and ".join(n)
        of = "" if relation == "all" else f"{relation} "
        notes.append(f"{benchmark}: {counts} {of}questions.")
    for data, name in zip(measured, names, strict=True):
        for benchmark, result in data["report"]["benchmarks"].items():
            if result["left_out"]:
                notes.append(
                    f"{name}, {benchmark}: {counted(result['left_out'], 'question')} "
                    "could not be asked under "
                    "every method and are left out."
                )
            bad = data["report"]["input"][benchmark]["malformed"]
            if bad:
                notes.append(f"{benchmark}: {len(bad)} malformed rows, the first: {bad[0]}")
        notes += data["report"]["notes"]
    return tuple(dict.fromkeys(notes))


def _against_baseline(data: Measured) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Benchmark and comparison with the first method, for each other method."""
    for benchmark, result in _results(data):
        for pair in result["pairs"]:
            if pair["before"] == data["methods"][0]:
                yield benchmark, pair


def _changes(measured: Sequence[Measured], names: Sequence[str]) -> Table:
    first = measured[0]["methods"][0]
    columns = (
        "model", "benchmark", "method", "accuracy", "F1", "gained", "lost", "McNemar p", "verdict",
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [
            name, benchmark, pair["after"], pair["change"]["accuracy"], pair["change"]["f1"],
            pair["gained"], pair["lost"], pair["mcnemar_p"], pair["verdict"],
        ]
        for data, name in zip(measured, names, strict=True)
        for benchmark, pair in _against_baseline(data)
    ]  # fmt: skip
    title = f"Changes against {first} on the same questions"
    return Table(title, columns, rows, frozenset(columns[3:5]))


def _more(measured: Sequence[Measured], names: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for data, name in zip(measured, names, strict=True):
        for benchmark, result in _results(data):
            strict = data["report"]["benchmarks"][benchmark]["rules"]["strict"]["methods"]
            rows += [
                [name, benchmark, method, *(figures[key] for key in MORE),
                 figures["unparsed"], strict[method]["accuracy"], strict[method]["unparsed"]]
                for method, figures in result["methods"].items()
            ]  # fmt: skip
    columns = (
        "model", "benchmark", "method", *MORE.values(), "unparsed", "accuracy (strict rule)",
        "unparsed (strict rule)",
    )  # fmt: skip
    return Table("Other metrics (official rules, yes is positive)", columns, rows, aside=True)


def _figure(data: Measured, name: str) -> Figure:
    rows = []
    for benchmark, result in _results(data):
        for method, figures in result["methods"].items():
            accuracy = data["over_lists"][benchmark].get(method, figures)["accuracy"]
            role = {"vanilla": "plain", "rve": "rve"}.get(method, "control")
            paper = paper_value(data, benchmark, method)
            rows.append(ScoreRow(method, **accuracy, group=benchmark, paper=paper, role=role))
    return dots(rows, x_label="accuracy", baseline=data["methods"][0], title=name)


def _conclude(measured: Sequence[Measured], names: Sequence[str]) -> Iterator[str]:
    """What each method changes, and which one is best, as far as it is confirmed."""
    compared = 0
    for data, name in zip(measured, names, strict=True):
        for benchmark, pair in _against_baseline(data):
            compared += 1
            change = pair["change"]["accuracy"]
            interval = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
            yield (
                f"{name}, {benchmark}: {pair['after']} against {pair['before']}: {pair['verdict']} "
                f"(accuracy {interval})."
            )
        for benchmark, result in _results(data):
            if len(result["methods"]) > 1:
                best = confirmed_best(result, "accuracy")
                lead = "no method leads the second by more than these questions leave open"
                yield f"{name}, {benchmark}: {f'{best} is the most accurate' if best else lead}."
    if compared > 1:
        yield (
            f"Each interval stands alone: by chance about one in twenty of {compared} comparisons "
            "excludes 0."
        )


STUDY = Study(
    "main-table",
    "Tables 1, 3, 4",
    "accuracy and F1 of methods on benchmarks, for one model or several",
    _measure,
    _show,
    methods=tuple(METHODS),
    several=True,
    work=work_of_all_questions,
)
