"""Whether the heads that a score ranks first look where the answer is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rvelens.localisation import rank_correlations
from rvelens.metrics import bootstrap, bootstrap_each
from rvelens.profile import ARSProfile
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.estimates import kept, means
from rvelens.studies.kit.regions import each_region, has_regions

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
        that the image gets, mean over all heads.
    """
    if not has_regions(setup):
        return None
    cluster, values = each_region(setup)
    auc, mass = values["auc"], values["enrichment"]
    each = values["image"].mean(axis=(1, 2))

    def every_head(drawn: Int[np.ndarray, " draw"]) -> float:
        return float(each[drawn].mean())

    return {
        "questions": len(cluster),
        "image_attention": kept(bootstrap(every_head, cluster, seed=setup.seed)),
        **{
            name: _of_score(profile, auc, mass, layers, k, cluster, setup.seed)
            for name, profile in profiles.items()
        },
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
    shape, some = scores.shape, list(layers)
    every = means(np.concatenate([auc.reshape(len(auc), -1), mass.reshape(len(mass), -1)], axis=1))

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        by_auc, by_mass = every(drawn).reshape(2, *shape)
        # Heads of equal AUC must tie, whatever the order in which theirs was summed up.
        rounded = by_auc.round(9)
        within = rank_correlations(scores, rounded)[some].mean()
        overall = rank_correlations(scores.reshape(1, -1), rounded.reshape(1, -1))[0]
        first = np.nanmean(by_auc[at])
        over_all = first - np.nanmean(by_auc[some])
        return np.array([first, over_all, np.nanmean(by_mass[at]), within, overall])

    names = ("auc", "auc_over_all", "enrichment", "within", "overall")
    estimates = bootstrap_each(statistic, cluster, seed=seed)
    return {name: kept(one) for name, one in zip(names, estimates, strict=True)}
