"""RVE's settings chosen on some photographs and reported on others.

The best of many settings on the questions that chose it is too good. So photographs are split first:
one axis of settings after the other is searched on the validation photographs, and the result is
asked once about the test photographs, next to the plain model and to the paper's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Answer
from rvelens.evaluate.scoring import METRICS, read_answers, score
from rvelens.evaluate.tuned import By, Tuned
from rvelens.files.wording import counted
from rvelens.heads.layers import contiguous_bands
from rvelens.hooks import rve_hooks
from rvelens.model.replay import Hooks
from rvelens.stats import auc
from rvelens.studies.kit.asking import need_labels
from rvelens.studies.kit.base import HooksOf, Measured, Setup, Shown, Study
from rvelens.studies.kit.settings import CHANGE_COLUMNS, SIGNED, describe_setting, of_rve, pair, row
from rvelens.tables import Table

PLAIN, DEFAULT, TUNED = "vanilla", "RVE, as it was", "RVE, tuned"


def _measure(setup: Setup) -> dict[str, Any]:
    """Search on validation photographs, then one look at the test photographs."""
    by = setup.options["by"]
    if by not in get_args(By):
        raise ValueError(
            f"tuning by {by!r}: expected one of {', '.join(get_args(By))}; choose one."
        )
    if setup.options["rounds"] < 1:
        raise ValueError(
            f"rounds={setup.options['rounds']}: expected at least 1; pass a larger number."
        )
    need_labels("tune", setup.benchmarks)
    validation, test = _split(setup)
    base = of_rve(setup)
    photographs = tuple(sorted({item.source for item in validation.items}))
    about = by, setup.model.name, setup.ranking.digest(), validation.name, photographs
    Tuned(base, *about).refuse_report_on(test)  # before the search, which may take hours
    plain = _plain(setup, validation)
    best, log = search(setup, validation, base, partial(rve_hooks, setup.ranking))
    tuned = Tuned(best, *about)
    settings = {
        PLAIN: [],
        DEFAULT: rve_hooks(setup.ranking, **base),
        TUNED: rve_hooks(setup.ranking, **best),
    }
    result = score(test, setup.answers("test", test, settings), setup.seed, against=PLAIN)
    return {
        "model": setup.model.name,
        "by": by,
        "base": base,
        "tuned": tuned.to_json(),
        "validation": {
            "questions": len(validation.items),
            "photographs": len(tuned.photographs),
            "benchmark": validation.name,
            "plain": plain,
        },
        "search": log,
        "result": result,
    }


def _plain(setup: Setup, validation: Benchmark) -> float:
    """What the plain model reaches of what settings are chosen by.

    Raises:
        ValueError: the questions do not tell it.
    """
    by = setup.options["by"]
    figure = _figure_of(validation, by)(
        setup.answers("validation-plain", validation, {PLAIN: []})[PLAIN]
    )
    if figure < 0:
        raise ValueError(
            f"{counted(len(validation.items), 'question')} of {validation.name} to tune "
            "on do not determine "
            f"the {by} of the plain model: expected readable images; questions with the answer yes "
            "and with no, except for accuracy; and for auc single tokens for them; tune by accuracy, "
            "or on other questions."
        )
    return figure


def _split(setup: Setup) -> tuple[Benchmark, Benchmark]:
    """Validation and test questions; two benchmarks are one of each, one is split by photographs."""
    if len(setup.benchmarks) > 2:
        raise ValueError(
            f"{counted(len(setup.benchmarks), 'benchmark')} to tune on: expected one or "
            "two; pass one to "
            "split, or one to tune on and one to report on."
        )
    if len(setup.benchmarks) == 2:
        return setup.benchmarks
    return split(setup.benchmark, float(setup.options["share"]), setup.seed)


def split(benchmark: Benchmark, share: float, seed: int) -> tuple[Benchmark, Benchmark]:
    """A random share of the photographs with their questions, and the rest.

    Raises:
        ValueError: a share that leaves one side without photographs.
    """
    sources = sorted({item.source for item in benchmark.items})
    n = round(share * len(sources))
    if not 0 < n < len(sources):
        raise ValueError(
            f"share={share} of {counted(len(sources), 'photograph')} to tune on: expected "
            "photographs on both "
            "sides; choose another share, or more questions."
        )
    chosen = np.random.default_rng(seed).permutation(len(sources))[:n]
    mine = {sources[i] for i in chosen}
    parts = ([i for i in benchmark.items if (i.source in mine) == side] for side in (True, False))
    validation, test = (benchmark.keep(items) for items in parts)
    return validation, test


def search(
    setup: Setup,
    validation: Benchmark,
    start: Mapping[str, Any],
    hooks_of: Callable[..., Hooks | HooksOf],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best setting that is found by one axis after the other, until no axis changes.

    Ties keep the setting before; of equals on an axis the first one is taken. Axes are those of
    layers, alpha, beta, k and denoise that the setting has.

    Args:
        setup: of the study.
        validation: questions to choose on.
        start: the setting to begin with, by keyword.
        hooks_of: the hooks of a setting, from its keywords.

    Returns:
        the setting, and one row for each axis and round: what was tried, the best, and its figure.
    """
    best, log, tried = dict(start), [], dict[str, float]()
    figure = _figure_of(validation, setup.options["by"])
    for turn in range(int(setup.options["rounds"])):
        before = dict(best)
        for axis, values in _axes(setup, start).items():
            candidates = {
                describe_setting(setting): setting
                for setting in (best, *({**best, axis: v} for v in values))
            }
            hooks = {name: hooks_of(**setting) for name, setting in candidates.items()}
            new = {
                name: setting_hooks for name, setting_hooks in hooks.items() if name not in tried
            }
            if new:
                answers = setup.answers(f"validation-{turn + 1}-{axis}", validation, new)
                tried |= {name: figure(by_id) for name, by_id in answers.items()}
            name = max(candidates, key=lambda label: tried[label])
            best = candidates[name]
            log.append(
                {
                    "round": turn + 1,
                    "axis": axis,
                    "tried": len(new),
                    "best": name,
                    "value": tried[name],
                }
            )
        if best == before:
            break
    return best, log


def _axes(setup: Setup, start: Mapping[str, Any]) -> dict[str, list[Any]]:
    options, n, most = setup.options, setup.model.n_layers, setup.model.n_heads // 2
    axes: dict[str, list[Any]] = {
        "layers": contiguous_bands(n, options["band_step"]),
        "alpha": [*map(float, options["alphas"])],
        "beta": [*map(float, options["betas"])],
        "k": [k for k in options["ks"] if k <= most],
        "denoise": [bool(flag) for flag in options["denoise"]],
    }
    return {
        axis: values if axis == "layers" else sorted({*values, start[axis]})
        for axis, values in axes.items()
        if axis in start
    }


def _figure_of(benchmark: Benchmark, by: By) -> Callable[[Mapping[str, Answer]], float]:
    """What a setting is chosen by: a metric of its answers, by the official rule; -1 if undefined."""

    def figure(answers: Mapping[str, Answer]) -> float:
        numbers = [n for n, item in enumerate(benchmark.items) if item.id in answers]
        scored = read_answers(benchmark, answers, numbers, benchmark.rule)
        if by == "auc":
            value = float(auc(scored.truth, scored.margin))
        elif by in scored.metrics:
            value = float(METRICS[by](scored.cells.sum(axis=0)))
        else:
            value = np.nan
        return value if np.isfinite(value) else -1.0

    return figure


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """The test questions' figures, and the search that led there."""
    (data,) = measured
    result, validation = data["result"], data["validation"]
    if not result["rules"]:
        return Shown({}, sentences=("no test question could be asked.",))
    n_tried = sum(step["tried"] for step in data["search"])
    names = {
        PLAIN: PLAIN,
        DEFAULT: f"{DEFAULT}: {describe_setting(data['base'])}",
        TUNED: f"{TUNED}: {describe_setting(data['tuned']['setting'])}",
    }
    tables = {
        "": Table(
            f"{data['model']}, {result['benchmark']}, {result['questions']} test questions",
            ("setting", *CHANGE_COLUMNS),
            [(shown, *row(result, name)) for name, shown in names.items()],
            SIGNED,
            (
                f"Chosen from {counted(n_tried, 'setting')} by {data['by']} on "
                f"{validation['questions']} "
                f"questions about {validation['photographs']} other photographs "
                f"({validation['benchmark']}): {data['search'][-1]['value']:.3f} there, "
                f"{validation['plain']:.3f} without RVE.",
            ),
        ),
        "search": Table(
            "The search on validation questions",
            ("round", "axis", "settings tried", "best so far", data["by"]),
            [
                tuple(step[k] for k in ("round", "axis", "tried", "best", "value"))
                for step in data["search"]
            ],
        ),
    }
    gain = pair(result, TUNED)
    assert gain is not None
    change = gain["change"]["accuracy"]
    sentence = (
        f"tuned RVE on questions it was not tuned on: accuracy {change['value']:+.3f} "
        f"[{change['low']:+.3f}, {change['high']:+.3f}] against the plain model; {gain['verdict']}."
    )
    return Shown(tables, sentences=(sentence,))


STUDY = Study(
    "tune",
    "",
    "RVE's settings chosen on some photographs and reported on others",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    methods=("rve",),
    options={
        "by": "balanced_accuracy",
        "share": 0.3,
        "rounds": 3,
        "band_step": 1,
        "alphas": [0.02, 0.05, 0.1, 0.2, 0.3, 0.5],
        "betas": [0.25, 0.5, 1.0, 1.5, 2.0, 3.0],
        "ks": [1, 3, 5, 8, 12, 16],
        "denoise": [True],
    },
)
