"""Figures of yes margins under many settings at once, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from rvelens.stats import Estimate, auc_of_draws, resamples

MARGIN_METRICS = ("accuracy", "balanced_accuracy", "auc", "yes_ratio")
# Row 0 is the questions as they are, the others are bootstrap draws of them.
Draws = Float[np.ndarray, "draw setting"]


def draw_figures(
    truth: Bool[np.ndarray, " question"],
    margin: Float[np.ndarray, "setting question"],
    cluster: Int[np.ndarray, " question"],
    n_resamples: int = 1000,
    seed: int = 55,
) -> Mapping[str, Draws]:
    """Each of `METRICS` under each setting, of the questions and of bootstrap draws of whole clusters.

    The same draws serve every setting, so that the difference of two columns is a paired one.

    Args:
        truth: whether yes is right.
        margin: log-odds of yes over no; above 0 the answer is yes.
        cluster: what is drawn as one, such as the photograph of each question.
        n_resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        by metric, NaN where a draw leaves it undefined, such as an AUC of true yes alone.
    """
    drawn = resamples(cluster, n_resamples, seed)
    whole = np.ones(len(truth), dtype=np.int64)
    weight = np.stack([whole, *(np.bincount(i, None, len(truth)) for i in drawn)])
    yes = margin > 0
    hits = [_share(weight * (truth == side), yes == side) for side in (True, False)]
    return {
        "accuracy": _share(weight, yes == truth),
        "balanced_accuracy": (hits[0] + hits[1]) / 2,
        "auc": np.stack([auc_of_draws(truth, row, weight.T) for row in margin], axis=1),
        "yes_ratio": _share(weight, yes),
    }


def to_estimate(draws: Float[np.ndarray, " draw"]) -> dict[str, float] | None:
    """A number, which stands first, with the 95% interval of its draws; None where undefined."""
    return Estimate.from_draws(draws[0], draws[1:]).to_json_or_none()


def _share(
    weight: Int[np.ndarray, "draw question"], right: Bool[np.ndarray, "setting question"]
) -> Draws:
    """Weighted share of the questions with weight for which something holds."""
    whole = weight.sum(axis=1, keepdims=True)
    part = weight @ right.T.astype(float)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
