"""Effects of all pairs of runs together, with intervals, and how they go with ARS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rvelens.heads.profile import ARSProfile
from rvelens.heads.region import rank_correlations
from rvelens.stats import bootstrap_each, clusters
from rvelens.studies.kit.base import Setup, Study
from rvelens.studies.kit.regions import check_regions
from rvelens.studies.patching.render import SETS, show
from rvelens.studies.patching.units import Unit, of_images, of_texts


def measure(setup: Setup) -> dict[str, Any]:
    """Effects of heads, attention and sets of image tokens, by kind of pair."""
    check_regions(setup)  # before the work
    n = setup.options["n"]
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2; pass a larger number.")
    items = setup.benchmark.items[:n]
    images, refused = of_images(setup, items)
    texts = of_texts(setup, n)
    photographs = clusters(item.source for item in items if item.id in images)
    scenes = clusters(unit["scene"] for unit in texts)
    return {
        "model": setup.model.name,
        "benchmark": setup.benchmark.name,
        "questions": len(images),
        "pairs": len(texts),
        "photographs": int(photographs.max()) + 1,
        "left_out": {"images": refused, "texts": len(setup.pairs[:n]) - len(texts)},
        "rank": (setup.ranking.ranking.argsort(dim=1) + 1).tolist(),
        "images": _summary(list(images.values()), photographs, setup),
        "texts": _summary(texts, scenes, setup),
    }


def _summary(units: Sequence[Unit], cluster: Int[np.ndarray, " unit"], setup: Setup) -> Unit:
    """Estimates of all units together; each counts by the distance of its two runs.

    This is the sum of all movements over the sum of all distances: a unit whose two runs hardly differ
    has an effect that rounding and chance make large, and would outweigh the others.
    """
    gap = np.array([unit["gap"] for unit in units])
    names = [name for name in ("heads", "attention", *SETS) if name in units[0]]
    parts = {name: np.array([unit[name] for unit in units], dtype=float) for name in names}
    if "region" in parts:
        parts["gain"] = parts["region"] - parts["others"]
    flat = np.concatenate([x.reshape(len(x), -1) for x in parts.values()], axis=1)
    moved, n_heads = flat * gap[:, None], parts["heads"][0].size
    profile, k = setup.ranking, min(setup.options["k"], setup.ranking.n_heads // 2)

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        effects = moved[drawn].sum(axis=0) / gap[drawn].sum()
        return np.concatenate([effects, _correlate_with_ars(effects[:n_heads], profile, k)])

    flat_estimates = [
        x.to_json_or_none() for x in bootstrap_each(statistic, cluster, seed=setup.seed)
    ]
    estimates, start = {}, 0
    for name, part in parts.items():
        estimates[name] = flat_estimates[start : start + part[0].size]
        start += part[0].size
    whole = statistic(np.arange(len(units)))[:n_heads]
    return {
        **estimates,
        "k": k,
        "correlation": flat_estimates[-2],
        "top": flat_estimates[-1],
        "luck": _luck(whole, profile, setup.seed),
    }


def _by_layer(
    effects: Float[np.ndarray, " number"], profile: ARSProfile
) -> Float[np.ndarray, "layer head"]:
    return effects.reshape(profile.n_layers, profile.n_heads)


def _correlate_with_ars(
    effects: Float[np.ndarray, " number"], profile: ARSProfile, k: int
) -> Float[np.ndarray, " both"]:
    """Rank correlation of sensitivity and effect within layers; the first k heads over all heads."""
    by_layer = _by_layer(effects, profile)
    is_complete = np.isfinite(by_layer).all(axis=1)
    rank = -profile.ranking.argsort(dim=1).double().numpy()
    within = rank_correlations(rank[is_complete], by_layer[is_complete].round(9)).mean()
    layers = np.flatnonzero(is_complete).tolist()
    first = np.mean([by_layer[n, profile.top(n, k)] - by_layer[n].mean() for n in layers])
    return np.array([within, first])


def _luck(effects: Float[np.ndarray, " number"], profile: ARSProfile, seed: int) -> list[float]:
    """Between which rank correlations 95% of 1000 random orders of the heads lie."""
    by_layer = _by_layer(effects, profile)
    complete = by_layer[np.isfinite(by_layer).all(axis=1)].round(9)
    rng = np.random.default_rng(seed)
    drawn = [rank_correlations(rng.random(complete.shape), complete).mean() for _ in range(1000)]
    return [round(float(x), 6) for x in np.percentile(drawn, [2.5, 97.5])]


STUDY = Study(
    "patching",
    "",
    "what each head and the true region carry of the answer, by activation patching",
    measure,
    show,
    needs=frozenset({"profile", "pairs"}),
    options={"k": 5, "n": 200},
)
