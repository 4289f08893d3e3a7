"""Which heads are enhanced, and whether the denoising mask helps (Tables 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rvelens.evaluate.scoring import score
from rvelens.files.wording import counted
from rvelens.hooks import rve_hooks
from rvelens.model.replay import Hooks
from rvelens.plots import ScoreRow, dots
from rvelens.stats import Estimate
from rvelens.studies.kit.asking import need_truths
from rvelens.studies.kit.base import Measured, Setup, Shown, Study, Work
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import PaperCell, lookup, model_key
from rvelens.studies.kit.settings import CHANGE_COLUMNS, SIGNED, of_rve, pair, row, value
from rvelens.studies.kit.work import work_of_settings
from rvelens.tables import Table

# Rows of the tables: the scope that is enhanced, and whether the denoising mask is subtracted.
TABLE_ROWS: Mapping[str, tuple[str, bool] | None] = {
    "vanilla": None,
    "sensitive heads": ("sensitive", False),
    "all heads": ("all", False),
    "sensitive heads, denoised": ("sensitive", True),
    "all heads, denoised": ("all", True),
}
# What the paper claims of these rows, "under identical conditions", as the pairs that have to differ.
CLAIMS = (
    ("all heads rather than the sensitive half", "sensitive heads", "all heads"),
    (
        "all heads rather than the sensitive half, denoised",
        "sensitive heads, denoised",
        "all heads, denoised",
    ),
    ("the denoising mask, sensitive heads", "sensitive heads", "sensitive heads, denoised"),
    ("the denoising mask, all heads", "all heads", "all heads, denoised"),
)


def _measure(setup: Setup) -> dict[str, Any]:
    """Every row's figures on every benchmark, and paired changes."""
    need_truths("ablation", setup.benchmarks)
    settings = _settings(setup)
    return {
        "model": setup.model.name,
        "rve": of_rve(setup),
        "benchmarks": {
            benchmark.name: score(
                benchmark, setup.answers(benchmark.name, benchmark, settings), setup.seed
            )
            for benchmark in setup.benchmarks
        },
        "relation": {benchmark.name: benchmark.relation for benchmark in setup.benchmarks},
    }


def _work(setup: Setup) -> Work:
    """Every question under every row's setting."""
    items = [item for benchmark in setup.benchmarks for item in benchmark.items]
    return work_of_settings(setup, items, list(_settings(setup).values()))


def _settings(setup: Setup) -> dict[str, Hooks]:
    settled = of_rve(setup)
    return {
        name: []
        if setting is None
        else rve_hooks(setup.ranking, **{**settled, "scope": setting[0], "denoise": setting[1]})
        for name, setting in TABLE_ROWS.items()
    }


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """One table a benchmark, and the paper's rows beside those of its models."""
    (data,) = measured
    tables, figures, sentences = {}, {}, []
    for benchmark, result in data["benchmarks"].items():
        if not result["rules"]:
            continue
        name = "" if not tables else benchmark
        tables[name] = Table(
            f"{data['model']}, {benchmark}, {counted(result['questions'], 'question')}: what is "
            "enhanced",
            ("enhanced", *CHANGE_COLUMNS),
            [(label, *row(result, label)) for label in TABLE_ROWS],
            SIGNED,
        )
        figures[name] = dots(
            [_dot(data, benchmark, label) for label in TABLE_ROWS],
            x_label="accuracy",
            baseline="vanilla",
        )
        sentences += [_conclude(benchmark, claim, result, a, b) for claim, a, b in CLAIMS]
    tables["paper"] = _paper(data)
    return Shown(tables, figures, sentences=tuple(sentences), measured=_measured(data))


def _dot(data: Measured, benchmark: str, label: str) -> ScoreRow:
    accuracy = value(data["benchmarks"][benchmark], label, "accuracy")
    low, at, high = (
        float("nan") if accuracy is None else accuracy[k] for k in ("low", "value", "high")
    )
    role = "plain" if label == "vanilla" else "rve"
    papers = [
        cell.value
        for cell in _cells(data, benchmark)
        if cell.metric == "accuracy" and _label(cell) == label
    ]
    return ScoreRow(
        label, at, low, high, group=benchmark, paper=[*papers, float("nan")][0], role=role
    )


def _conclude(benchmark: str, claim: str, result: Measured, before: str, after: str) -> str:
    change = pair(result, after, before)
    assert change is not None
    gain = change["change"]["accuracy"]
    numbers = f"accuracy {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"{benchmark}: {claim}: {numbers}, {change['verdict']}."


def _cells(data: Measured, benchmark: str) -> list[PaperCell]:
    """The paper's cells of the model and the questions that were measured."""
    if (benchmark, data["relation"][benchmark]) != ("mmrel-real", "action"):
        return []
    model = model_key(data["model"])
    return [c for c in (*lookup("table5"), *lookup("table7")) if c.model == model]


def _paper(data: Measured) -> Table:
    """Tables 5 and 7; measured only where the model and the questions are the paper's."""
    measured = _measured(data)
    title = "The paper's Tables 5 and 7 (MMRel real, action questions)"
    if measured:
        title += (
            f"; measured on {counted(data['benchmarks']['mmrel-real']['questions'], 'question')}"
        )
    else:
        subject = "it" if model_key(data["model"]) is None else "these questions"
        title += f"; measured here: {data['model']}, and the paper has no number of {subject}"
    # Without a measurement it is the paper's alone, which nobody wants in a terminal.
    table = compare_with_paper([*lookup("table5"), *lookup("table7")], measured, title)
    return replace(table, aside=not measured)


def _measured(data: Measured) -> dict[PaperCell, Estimate]:
    return {
        cell: Estimate(**estimate)
        for benchmark, result in data["benchmarks"].items()
        if result["rules"]
        for cell in _cells(data, benchmark)
        if (estimate := value(result, _label(cell), cell.metric)) is not None
    }


def _label(cell: PaperCell) -> str:
    cell_setting = cell.setting["scope"], cell.setting["denoise"]
    return next(
        name
        for name, setting in TABLE_ROWS.items()
        if (("none", False) if setting is None else setting) == cell_setting
    )


STUDY = Study(
    "ablation",
    "Tables 5 and 7",
    "RVE on all or only the sensitive heads, with and without the denoising mask",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    methods=("rve",),
    work=_work,
)
