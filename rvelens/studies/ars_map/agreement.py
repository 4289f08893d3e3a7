"""How far another ranking of the same heads agrees with the one that was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from rvelens.heads.profile import PUBLISHED, ARSProfile
from rvelens.heads.region import rank_correlations
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.plots import Series, lines
from rvelens.stats import bootstrap_each, format_change, means
from rvelens.studies.kit.base import Measured
from rvelens.studies.kit.paper import model_key

N_PERMUTATIONS = 999


def other_ranking(model: HookedLVLM, path: str) -> tuple[str, ARSProfile] | None:
    """The ranking to compare with, and its name: a file, or what was published for this model.

    None where no file is named and nothing was published.

    Raises:
        ValueError: a file that is no profile, or a ranking of a model of another shape.
    """
    if path:
        name, other = path, ARSProfile.load(path)
    else:
        # By name: other weights of the same shape have other heads.
        key = model_key(model.name)
        if key not in PUBLISHED:
            return None
        name, other = f"the published ranking of {key}", ARSProfile.published(key)
    have, want = (other.n_layers, other.n_heads), (model.n_layers, model.n_heads)
    if have != want:
        raise ValueError(
            f"{name} is of {have[0]} layers with {have[1]} heads, the model has {want[0]} with "
            f"{want[1]}: expected a ranking of this model; leave `against` out or choose another "
            "file."
        )
    return name, other


def agreement(
    per_pair: Float[np.ndarray, "pair layer head"],
    other: ARSProfile,
    cluster: Int[np.ndarray, " pair"],
    seed: int,
) -> dict[str, Any]:
    """Spearman's correlation with another ranking within each layer, and their mean.

    The p-value is the share of rankings with the other's heads exchanged at random within each layer
    whose mean correlation is as high, the ranking itself counted.
    """
    theirs = -other.ranking.argsort(dim=1).numpy().astype(float)
    if other.mean is not None:
        theirs = other.mean.double().cpu().numpy()
    mean_of = means(per_pair.reshape(len(per_pair), -1))

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        by_layer = rank_correlations(mean_of(drawn).reshape(theirs.shape), theirs)
        return np.append(by_layer, by_layer.mean())

    estimates = [
        estimate.to_json_or_none() for estimate in bootstrap_each(statistic, cluster, seed=seed)
    ]
    whole = per_pair.mean(axis=0)
    rng = np.random.default_rng(seed)
    mixed = [
        rank_correlations(whole, rng.permuted(theirs, axis=1)).mean() for _ in range(N_PERMUTATIONS)
    ]
    # Rounding must not tell a permutation that changes nothing from the ranking itself.
    reached = rank_correlations(whole, theirs).mean() - 1e-12
    p = (1 + sum(bool(x >= reached) for x in mixed)) / (1 + N_PERMUTATIONS)
    return {"by_layer": estimates[:-1], "mean": estimates[-1], "p": p, "digest": other.digest()}


def agreement_figure(data: Measured) -> Figure:
    """By layer, with intervals."""
    return lines(
        {"agreement": Series.from_estimates(None, data["agreement"]["by_layer"], "rve")},
        x_label="layer",
        y_label="rank correlation of heads",
        reference=("chance", 0.0),
    )


def conclude_agreement(data: Measured) -> str:
    """Whether they agree more than by chance."""
    correlation = data["agreement"]
    if not correlation:
        return f"There is no other ranking of {data['model']} to compare with; name one with `against`."
    mean, p = correlation["mean"], correlation["p"]
    claim = "agree more than by chance" if p < 0.05 else "do not agree more than chance confirms"
    return (
        f"These heads and {correlation['with']} {claim}: mean rank correlation {format_change(mean)}, "
        f"permutation p = {p:.3f}."
    )
