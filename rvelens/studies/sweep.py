"""RVE's settings: share, strength, heads, and layers (Figures 7 and 8), at the price of one evaluation.

Every setting replays the last token, and what is generated behind it, from one prefill of each
question (`rvelens.model.replay`). The best of many settings on the questions that chose it looks
better than it is: `rvelens tune` chooses on some questions and reports on others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rvelens.evaluate.answering import Answer
from rvelens.evaluate.scoring import score
from rvelens.files.wording import counted
from rvelens.heads.layers import contiguous_bands, format_layers, parse_layers
from rvelens.hooks import rve_hooks
from rvelens.model.replay import Hooks
from rvelens.plots import Series, bands, lines, surface
from rvelens.studies.kit.asking import need_truths
from rvelens.studies.kit.base import Measured, Setup, Shown, Study, Work
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import lookup
from rvelens.studies.kit.settings import (
    CHANGE_COLUMNS,
    SIGNED,
    describe_setting,
    of_rve,
    pair,
    row,
    value,
)
from rvelens.studies.kit.work import work_of_settings
from rvelens.tables import Table

_PLAIN = "vanilla"
CONFIDENT = "most confident band"
AUTO = "auto (ARS above its mean)"


def _measure(setup: Setup) -> dict[str, Any]:
    """Answers under every setting, and their figures against the plain model."""
    need_truths("sweep", setup.benchmarks)
    base = of_rve(setup)
    axes, layers = _axes(setup, base), _layer_rules(setup, base)
    kwargs = _every(axes, layers)
    settings = _settings(setup, kwargs)
    benchmark = setup.benchmark
    answers = setup.answers(benchmark.name, benchmark, settings)
    candidates = _alike(axes["bands"], len(base["layers"]))
    answers[CONFIDENT] = most_confident([answers[name] for name in candidates])
    result = score(benchmark, answers, setup.seed, against=_PLAIN)
    return {
        "model": setup.model.name,
        "n_layers": setup.model.n_layers,
        "base": base,
        "paper": [setup.model.family.alpha, 1.0],
        "settings": kwargs,
        "axes": {axis: list(of_axis) for axis, of_axis in axes.items()},
        "layers": [*layers, CONFIDENT],
        "candidates": candidates,
        "result": result,
    }


def _work(setup: Setup) -> Work:
    """Every question under every setting."""
    base = of_rve(setup)
    settings = _settings(setup, _every(_axes(setup, base), _layer_rules(setup, base)))
    return work_of_settings(setup, setup.benchmark.items, list(settings.values()))


def _every(
    axes: Mapping[str, Mapping[str, Any]], layers: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    return {name: setting for axis in (*axes.values(), layers) for name, setting in axis.items()}


def _settings(setup: Setup, kwargs: Mapping[str, Mapping[str, Any]]) -> dict[str, Hooks]:
    hooks = {name: rve_hooks(setup.ranking, **setting) for name, setting in kwargs.items()}
    return {_PLAIN: [], **hooks}


def _axes(setup: Setup, base: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings by axis and name; the same setting has the same name on every axis."""
    options, most = setup.options, setup.model.n_heads // 2
    alphas = sorted({*map(float, options["alphas"]), base["alpha"]})
    betas = sorted({*map(float, options["betas"]), base["beta"]})
    ks = sorted({*(k for k in options["ks"] if k <= most), base["k"]})
    n = setup.model.n_layers
    return {
        "alpha": _named(base, [{"alpha": a} for a in alphas]),
        "beta": _named(base, [{"beta": b} for b in betas]),
        "k": _named(base, [{"k": k} for k in ks]),
        "surface": _named(base, [{"alpha": a, "beta": b} for b in betas for a in alphas]),
        "bands": _named(
            base, [{"layers": band} for band in contiguous_bands(n, options["band_step"])]
        ),
    }


def _layer_rules(setup: Setup, base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Ways to choose the layers, by name: of the model, or of each input by attention entropy."""
    n = setup.model.n_layers
    rules = {"preset": parse_layers("preset", None, n), "all layers": list(range(n))}
    if setup.ranking.mean is not None:
        rules[AUTO] = parse_layers("auto", setup.ranking, n)
    settings = {name: {**base, "layers": layers} for name, layers in rules.items()}
    for limit in setup.options["max_entropies"]:
        gated = {**base, "layers": list(range(n)), "max_entropy": float(limit)}
        settings[f"entropy at most {limit:g}"] = gated
    return settings


def _named(
    base: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {
        describe_setting(setting): setting for setting in ({**base, **change} for change in changes)
    }


def _alike(bands: Mapping[str, Mapping[str, Any]], width: int) -> list[str]:
    """Bands of one width, the nearest to `width` that there is."""
    by_name = {name: len(setting["layers"]) for name, setting in bands.items()}
    nearest = min(by_name.values(), key=lambda w: abs(w - width))
    return [name for name, w in by_name.items() if w == nearest]


def most_confident(candidates: Sequence[Mapping[str, Answer]]) -> dict[str, Answer]:
    """For each question the answer of the setting that is surest of yes or no at its first token.

    The paper names generation confidence as a way to choose layers by the input; this is one: of
    bands of equal width, the one with the largest absolute log-odds. Without log-odds, the first.
    """
    return {
        name: max(
            (candidate[name] for candidate in candidates),
            key=lambda answer: abs(answer.margin or 0.0),
        )
        for name in candidates[0]
    }


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Lines over share, strength and heads, a surface of the first two, bands, and layer rules."""
    (data,) = measured
    result = data["result"]
    if not result["rules"]:
        return Shown({}, sentences=("no question could be asked.",))
    title = f"{data['model']}, {result['benchmark']}, {counted(result['questions'], 'question')}"
    tables = {
        "": Table(
            f"{title}: every setting",
            ("setting", *CHANGE_COLUMNS),
            [(name, *row(result, name)) for name in (_PLAIN, *data["settings"])],
            SIGNED,
        ),
        "layers": Table(
            f"{title}: ways to choose the layers",
            ("layers", *CHANGE_COLUMNS),
            [(_rule(data, name), *row(result, name)) for name in (_PLAIN, *data["layers"])],
            SIGNED,
            _layer_notes(data),
        ),
        "paper": compare_with_paper(
            [c for n in ("best_alpha", "best_beta", "best_k") for c in lookup("figures", metric=n)],
            {},
            "Where the paper's figures 7 and 8 peak (it prints no other number of them)",
        ),
    }
    figures = {
        "": _surface(data),
        "bands": _bands(data),
        **{axis: _line(data, axis) for axis in ("alpha", "beta", "k")},
    }
    return Shown(tables, figures, sentences=_conclude(data))


def _rule(data: Measured, name: str) -> str:
    setting = data["settings"].get(name)
    return name if setting is None else f"{name}: {format_layers(setting['layers'])}"


def _layer_notes(data: Measured) -> tuple[str, ...]:
    notes = [
        f"{CONFIDENT}: of {len(data['candidates'])} bands about as wide as the one chosen, for each "
        "question the one that is surest of its answer."
    ]
    if AUTO not in data["layers"]:
        notes.append(
            "auto is not among them: it goes by ARS, and a published ranking has no scores; "
            "measure some with `rvelens scan`."
        )
    return tuple(notes)


def _accuracy(data: Measured, name: str) -> Mapping[str, float]:
    accuracy = value(data["result"], name, "accuracy")
    assert accuracy is not None  # there are questions
    return accuracy


def _line(data: Measured, axis: str) -> Any:
    """Bars are of the paired change: those of accuracies alone hide differences from one line."""
    names, plain = data["axes"][axis], _accuracy(data, _PLAIN)["value"]
    changes = [
        change["change"]["accuracy"] for name in names if (change := pair(data["result"], name))
    ]
    low, at, high = (
        plain + np.array([change[key] for change in changes]) for key in ("low", "value", "high")
    )
    x = np.array([float(data["settings"][name][axis]) for name in names])
    label = {
        "alpha": "share of image tokens, α",
        "beta": "strength, β",
        "k": "heads a mask, K",
    }[axis]
    return lines(
        {"RVE": Series(at, x, low, high, role="rve")},
        x_label=label,
        y_label="accuracy",
        reference=("vanilla", plain),
        title="bars: 95% intervals of the change from vanilla",
    )


def _surface(data: Measured) -> Any:
    settings = [data["settings"][name] for name in data["axes"]["surface"]]
    alphas, betas = (np.array(sorted({s[key] for s in settings})) for key in ("alpha", "beta"))
    z = np.array([_accuracy(data, name)["value"] for name in data["axes"]["surface"]])
    paper = tuple(data["paper"])
    return surface(
        alphas, betas, z.reshape(len(betas), len(alphas)),
        x_label="share of image tokens, α", y_label="strength, β", z_label="accuracy",
        paper=paper if paper[0] in alphas and paper[1] in betas else None,
        centre=_accuracy(data, _PLAIN)["value"],
    )  # fmt: skip


def _bands(data: Measured) -> Any:
    n = data["n_layers"]
    gain: Float[np.ndarray, "first last"] = np.full((n, n), np.nan)
    for name in data["axes"]["bands"]:
        layers = data["settings"][name]["layers"]
        change = pair(data["result"], name)
        assert change is not None
        gain[layers[0], layers[-1]] = change["change"]["accuracy"]["value"]
    preset = data["base"]["layers"]
    contiguous = preset == list(range(preset[0], preset[-1] + 1))
    return bands(gain, preset=(preset[0], preset[-1]) if contiguous else None)


def _conclude(data: Measured) -> tuple[str, ...]:
    """What the questions confirm, and how many settings had the chance to look good."""
    changes = {name: pair(data["result"], name) for name in (*data["settings"], CONFIDENT)}
    if any(c is not None and c["verdict"].startswith("too few") for c in changes.values()):
        return ("too few photographs to say anything.",)
    gains = {n: c["change"]["accuracy"] for n, c in changes.items() if c is not None}
    better = [n for n, gain in gains.items() if gain["low"] > 0]
    worse = [n for n, gain in gains.items() if gain["high"] < 0]
    best = max(gains, key=lambda n: gains[n]["value"])
    gain = gains[best]
    largest = (
        f"the largest change is {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] "
        f"({best}); it was chosen on these questions, so it is too good: tune on others "
        "(`rvelens tune`)."
    )
    if gain["value"] <= 0:
        largest = "no setting does better than the plain model on these questions."
    return (
        f"of {counted(len(gains), 'setting')} {len(better)} raise accuracy and "
        f"{len(worse)} lower it by an "
        "interval that excludes 0; by chance about one in twenty would, half of these each way.",
        largest,
        _peaks(data),
    )


def _peaks(data: Measured) -> str:
    """Where the measured curves of Figures 7 and 8 peak; of equal settings the smallest."""
    peaks = []
    for axis in ("alpha", "beta", "k"):
        name = max(data["axes"][axis], key=lambda n: _accuracy(data, n)["value"])
        at, accuracy = data["settings"][name][axis], _accuracy(data, name)["value"]
        peaks.append(f"{'K' if axis == 'k' else axis} {at:g} ({accuracy:.3f})")
    return (
        f"one axis at a time, accuracy is highest at {', '.join(peaks)}; the plain model's is "
        f"{_accuracy(data, _PLAIN)['value']:.3f}. Other values may do as well: no interval is given of "
        "where a peak lies."
    )


STUDY = Study(
    "sweep",
    "Figures 7 and 8",
    "share, strength, heads and layers of RVE, and ways to choose the layers",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    methods=("rve",),
    options={
        "alphas": [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7],  # InstructBLIP's peak, 0.5, is inside
        "betas": [0.25, 0.5, 1.0, 1.5, 2.0, 3.0],
        "ks": [1, 3, 5, 8, 12, 16],
        "band_step": 1,
        "max_entropies": [0.5, 0.6, 0.7, 0.8, 0.9],
    },
    work=_work,
)
