"""Whether the heads that a score ranks first look where the answer is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rvelens.heads.profile import ARSProfile
from rvelens.heads.region import rank_correlations
from rvelens.stats import bootstrap, bootstrap_each, means
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.regions import each_region, has_regions

N_ORDERS = 1000
PerHead = Float[np.ndarray, "question layer head"]


def findings(
    setup: Setup, profiles: Mapping[str, ARSProfile], layers: Sequence[int], k: int
) -> dict[str, Any] | None:
    """By score: AUC and enrichment of its first k heads a layer, over all heads', and correlations.

    None for a benchmark without ground-truth regions, or a model whose image tokens have no place.

    Returns:
        "auc" and "enrichment": mean over the questions, the layers and each one's first k heads;
        "auc_over_all": the first minus the mean of all heads of these layers; "within": Spearman's
        correlation of score and mean AUC over the heads of a layer, mean over these layers; "overall":
        over all heads of the model. "image_attention" is the share of the last token's attention
        that the image gets, mean over all heads. "random_orders": mean and middle 95% of the same
        numbers under random orders of heads, the luck that no interval over questions holds.
    """
    if not has_regions(setup):
        return None
    cluster, values = each_region(setup)
    auc, mass = values["auc"], values["enrichment"]
    image_attention = values["image"].mean(axis=(1, 2))

    def every_head(drawn: Int[np.ndarray, " draw"]) -> float:
        return float(image_attention[drawn].mean())

    return {
        "questions": len(cluster),
        "image_attention": bootstrap(every_head, cluster, seed=setup.seed).to_json_or_none(),
        "random_orders": _random_orders(np.nanmean(auc, axis=0), layers, k, setup.seed),
        **{
            name: _of_score(profile, auc, mass, layers, k, cluster, setup.seed)
            for name, profile in profiles.items()
        },
    }


def _random_orders(
    auc: Float[np.ndarray, "layer head"], layers: Sequence[int], k: int, seed: int
) -> dict[str, Any]:
    """What rankings by chance have of "auc_over_all", "within" and "overall"."""
    rng, layer_numbers, rounded = np.random.default_rng(seed), list(layers), auc.round(9)
    orders = []
    for _ in range(N_ORDERS):
        scores = rng.random(auc.shape)
        first = np.take_along_axis(auc, np.argsort(-scores, axis=1)[:, :k], axis=1)[layer_numbers]
        within = rank_correlations(scores, rounded)[layer_numbers].mean()
        overall = rank_correlations(scores.reshape(1, -1), rounded.reshape(1, -1))[0]
        orders.append((np.nanmean(first) - np.nanmean(auc[layer_numbers]), within, overall))
    low, high = np.percentile(orders, (2.5, 97.5), axis=0).tolist()
    mean = np.mean(orders, axis=0).tolist()
    return {
        name: {"value": round(mean[n], 6), "low": round(low[n], 6), "high": round(high[n], 6)}
        for n, name in enumerate(("auc_over_all", "within", "overall"))
    }


def _of_score(
    profile: ARSProfile,
    auc: PerHead,
    mass: PerHead,
    layers: Sequence[int],
    k: int,
    cluster: Int[np.ndarray, " question"],
    seed: int,
) -> dict[str, Any]:
    """Estimates for one score, all on the same draws of photographs."""
    chosen = [(layer, head) for layer in layers for head in profile.top(layer, k)]
    at = tuple(np.array(chosen).T)
    scores = profile.scores.double().numpy()
    shape, layer_numbers = scores.shape, list(layers)
    every = means(np.concatenate([auc.reshape(len(auc), -1), mass.reshape(len(mass), -1)], axis=1))

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        by_auc, by_mass = every(drawn).reshape(2, *shape)
        # Heads of equal AUC must tie, whatever the order in which theirs was summed up.
        rounded = by_auc.round(9)
        within = rank_correlations(scores, rounded)[layer_numbers].mean()
        overall = rank_correlations(scores.reshape(1, -1), rounded.reshape(1, -1))[0]
        first = np.nanmean(by_auc[at])
        over_all = first - np.nanmean(by_auc[layer_numbers])
        return np.array([first, over_all, np.nanmean(by_mass[at]), within, overall])

    names = ("auc", "auc_over_all", "enrichment", "within", "overall")
    estimates = bootstrap_each(statistic, cluster, seed=seed)
    return {
        name: estimate.to_json_or_none() for name, estimate in zip(names, estimates, strict=True)
    }
