"""Whether the heads that ARS ranks high find the region where the answer is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from rvelens.files.wording import counted, too_few
from rvelens.heads.layers import PRESET, format_layers, scaled_layers
from rvelens.heads.profile import ARSProfile
from rvelens.heads.region import rank_correlations
from rvelens.plots import Series, lines, scatter
from rvelens.stats import FEW, above, bootstrap_each, format_change, means
from rvelens.studies.kit.base import Measured, Setup, Shown, Study
from rvelens.studies.kit.regions import check_regions, each_region
from rvelens.tables import Table

_MEASURES = {"auc": ("region AUC", 0.5), "enrichment": ("mass / area", 1.0)}
_GROUPS = {
    "most": "sensitive",
    "least": "insensitive",
    "all": "all heads",
    "difference": "sensitive - insensitive",
    "over_all": "sensitive - all",
}
_SIGNED = frozenset({_GROUPS["difference"], _GROUPS["over_all"], "correlation with ARS"})
# By whether the difference of AUC and the correlation are confirmed above (true) or below 0.
VERDICTS: Mapping[tuple[bool | None, bool | None], str] = {
    (True, True): "yes, sensitive heads find it better and AUC rises with ARS",
    (False, False): "no, sensitive heads find it worse and AUC falls with ARS",
}
_PerHead = Float[np.ndarray, "question layer head"]


def _measure(setup: Setup) -> dict[str, Any]:
    """AUC and enrichment of every head, by group of heads and layer, and how ARS goes with AUC."""
    profile, benchmark = setup.ranking, setup.benchmark
    check_regions(setup)  # a model without a patch grid is refused before the work
    k = min(setup.options["k"], profile.n_heads // 2)
    if k < 1:
        raise ValueError(f"k={k} heads: expected at least 1; pass a larger number.")
    cluster, values = each_region(setup)
    n_asked = len(cluster)
    preset = scaled_layers(*PRESET, profile.n_layers)
    return {
        "model": setup.model.name,
        "benchmark": benchmark.name,
        "questions": n_asked,
        "photographs": int(cluster.max()) + 1,
        "left_out": len(benchmark.items) - n_asked,
        "k": k,
        "preset": preset,
        **{
            name: _groups(per_head, profile, k, preset, cluster, setup.seed)
            for name, per_head in values.items()
        },
        "correlation": _correlation(values["auc"], profile, cluster, setup.seed),
        "ars": None if profile.mean is None else _rounded(profile.scores.double().cpu().numpy()),
        "rank": (profile.ranking.argsort(dim=1) + 1).tolist(),
        "by_head": {
            name: _rounded(_mean(per_head.reshape(len(per_head), -1)).reshape(per_head.shape[1:]))
            for name, per_head in values.items()
        },
    }


def _groups(
    values: _PerHead,
    profile: ARSProfile,
    k: int,
    preset: Sequence[int],
    cluster: Int[np.ndarray, " question"],
    seed: int,
) -> dict[str, list[Any]]:
    """Means over the heads of each group, for every layer, for all layers and for the preset ones.

    Differences, of the most sensitive heads to the least and to all, are on the same questions.
    """
    n_layers = profile.n_layers
    everyone = list(range(profile.n_heads))
    heads = [
        {"most": profile.top(n, k), "least": profile.bottom(n, k), "all": everyone}
        for n in range(n_layers)
    ]
    by_group = {
        group: np.column_stack([_mean(values[:, n, heads[n][group]].T) for n in range(n_layers)])
        for group in ("most", "least", "all")
    }
    by_group["difference"] = by_group["most"] - by_group["least"]
    by_group["over_all"] = by_group["most"] - by_group["all"]
    columns = [
        np.column_stack([x, _mean(x.T), _mean(x[:, list(preset)].T)]) for x in by_group.values()
    ]
    estimates = [
        x.to_json_or_none() for x in bootstrap_each(means(np.hstack(columns)), cluster, seed=seed)
    ]
    width = n_layers + 2
    return {name: estimates[n * width : (n + 1) * width] for n, name in enumerate(by_group)}


def _mean(values: Float[np.ndarray, "number column"]) -> Float[np.ndarray, " column"]:
    """Mean over the first axis without NaN; NaN where there is nothing else."""
    return means(values)(np.arange(len(values)))


def _correlation(
    auc: _PerHead, profile: ARSProfile, cluster: Int[np.ndarray, " question"], seed: int
) -> dict[str, Any]:
    """Spearman's correlation of a head's sensitivity with its mean AUC, within layers and over all.

    Without scores, heads have their rank within the layer only, and there is none over all of them.
    """
    has_scores = profile.mean is not None
    score = (
        profile.scores.double().cpu() if has_scores else -profile.ranking.argsort(dim=1).double()
    )
    scores = score.numpy()
    mean_of = means(auc.reshape(len(auc), -1))

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        # Heads of equal AUC must tie, whatever the order in which theirs was summed up.
        mean_auc = mean_of(drawn).reshape(scores.shape).round(9)
        within = rank_correlations(scores, mean_auc)
        over_all = rank_correlations(scores.reshape(1, -1), mean_auc.reshape(1, -1))
        return np.concatenate([within, [within.mean()], over_all if has_scores else [np.nan]])

    estimates = [
        estimate.to_json_or_none() for estimate in bootstrap_each(statistic, cluster, seed=seed)
    ]
    return {"by_layer": estimates[:-2], "within_layers": estimates[-2], "all_heads": estimates[-1]}


def _rounded(values: Float[np.ndarray, "layer head"]) -> list[list[float | None]]:
    return [[round(x, 6) if np.isfinite(x) else None for x in row] for row in values.tolist()]


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Every head's ARS against its AUC, and groups of heads by layer."""
    (data,) = measured
    return Shown(
        {"": _table(data, "auc"), "enrichment": _table(data, "enrichment")},
        {
            "": _scatter(data),
            "layers": _lines(data, "auc"),
            "enrichment": _lines(data, "enrichment"),
        },
        sentences=tuple(_conclude(data)),
    )


def _table(data: Measured, name: str) -> Table:
    measure, chance = _MEASURES[name]
    groups = data[name]
    correlation = data["correlation"]
    n_layers = len(data["rank"])
    firsts = [*map(str, range(n_layers)), "all layers", f"{format_layers(data['preset'])} (preset)"]
    rows = [[first, *(groups[group][n] for group in _GROUPS)] for n, first in enumerate(firsts)]
    columns = ("layer", *_GROUPS.values())
    notes = [
        f"Means over questions and over the {data['k']} most and the {data['k']} least sensitive "
        "heads by ARS of each layer. Brackets: 95% bootstrap intervals over scenes. Chance is "
        f"{chance:g}.",
        {
            "auc": "Region AUC: probability that a token inside the region of the asked verb gets more "
            "attention than one outside.",
            "enrichment": "Mass / area: the region's share of the image's attention over its share of "
            "the image's tokens.",
        }[name],
    ]
    if name == "auc":
        columns += ("correlation with ARS",)
        extra = [*correlation["by_layer"], correlation["within_layers"], None]
        rows = [[*row, estimate] for row, estimate in zip(rows, extra, strict=True)]
        if correlation["all_heads"]:
            rows.append(["all heads together", *[None] * len(_GROUPS), correlation["all_heads"]])
        notes.append(
            "Correlation: Spearman's, of ARS and mean AUC over the heads of a layer; for all "
            "layers, the mean of these."
        )
    if data["left_out"]:
        notes.append(
            "Left out, because their pictures could not be read: "
            f"{counted(data['left_out'], 'question')}."
        )
    title = (
        f"{measure} by layer, {data['model']}, {counted(data['questions'], 'question')} "
        f"of {data['benchmark']}"
    )
    return Table(title, columns, rows, _SIGNED, tuple(notes))


def _scatter(data: Measured) -> Figure:
    scored = data["ars"] is not None
    x = np.array(data["ars"] if scored else data["rank"], dtype=float)
    y = np.array(data["by_head"]["auc"], dtype=float)
    layer = np.broadcast_to(np.arange(len(x))[:, None], x.shape)
    within = data["correlation"]["within_layers"]
    return scatter(
        x.ravel(),
        y.ravel(),
        layer.ravel(),
        x_label="ARS of the head" if scored else "rank in its layer (1: most sensitive)",
        y_label="region AUC of the head",
        reference=("chance", 0.5),
        title=f"rank correlation within layers\n{format_change(within)}" if within else "",
    )


def _lines(data: Measured, name: str) -> Figure:
    measure, chance = _MEASURES[name]
    n_layers = len(data["rank"])
    looks = {
        f"{data['k']} most sensitive": ("most", "rve"),
        f"{data['k']} least sensitive": ("least", "least"),
        "all heads": ("all", "plain"),
    }
    return lines(
        {
            label: Series.from_estimates(None, data[name][group][:n_layers], role)
            for label, (group, role) in looks.items()
        },
        x_label="layer",
        y_label=measure,
        reference=("chance", chance),
    )


def _conclude(data: Measured) -> list[str]:
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    n_layers, within = len(data["rank"]), data["correlation"]["within_layers"]
    overall, preset = data["auc"]["difference"][n_layers:]
    over_all, most = data["auc"]["over_all"][n_layers], data["auc"]["most"][n_layers]
    mass = data["enrichment"]["over_all"][n_layers]
    if not (overall and preset and over_all and most and within and mass):
        return ["Whether ARS finds the region is not shown: no head has an AUC."]
    verdict = VERDICTS.get((above(overall), above(within)), "not shown")
    layers = [
        above(difference) for difference in data["auc"]["difference"][:n_layers] if difference
    ]
    better, worse = layers.count(True), layers.count(False)
    return [
        f"Does ARS find the region? Over all layers {verdict}: AUC of sensitive minus insensitive "
        f"heads {format_change(overall)}, rank correlation of ARS and AUC within layers "
        f"{format_change(within)}.",
        f"By layer, sensitive heads find it better than insensitive ones in {better} of {n_layers} and "
        f"worse in {worse}; in RVE's preset layers {format_layers(data['preset'])} together, "
        f"{_claim(preset, 'insensitive ones')} ({format_change(preset)}).",
        f"Against the mean of all heads, {_claim(over_all, 'all')} ({format_change(over_all)}); by "
        f"mass over area, {_claim(mass, 'all')} ({format_change(mass)}).",
        f"The {data['k']} most sensitive heads have a mean AUC of {most['value']:.3f}, which is "
        f"{_against_chance(most)}.",
        "Intervals are over scenes, for these heads and this ranking.",
    ]


def _claim(difference: Mapping[str, float], others: str) -> str:
    return {
        True: f"sensitive heads find it better than {others}",
        False: f"sensitive heads find it worse than {others}",
        None: f"no difference of sensitive heads from {others} is confirmed",
    }[above(difference)]


def _against_chance(auc: Mapping[str, float]) -> str:
    verdicts = {
        True: "above chance",
        False: "below chance",
        None: "not shown to differ from chance",
    }
    return verdicts[above(auc, 0.5)]


STUDY = Study(
    "localisation",
    "",
    "whether sensitive heads find the ground-truth region, and how that goes with ARS",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    options={"k": 5},
)
