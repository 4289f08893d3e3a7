"""Figures of yes margins under many settings at once, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from rvelens.metrics import interval, resamples

METRICS = ("accuracy", "balanced_accuracy", "auc", "yes_ratio")
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
    weight = np.stack([np.ones(len(truth)), *(np.bincount(i, None, len(truth)) for i in drawn)])
    yes = margin > 0
    hits = [_share(weight * (truth == side), yes == side) for side in (True, False)]
    return {
        "accuracy": _share(weight, yes == truth),
        "balanced_accuracy": (hits[0] + hits[1]) / 2,
        "auc": np.stack([_auc(truth, one, weight) for one in margin], axis=1),
        "yes_ratio": _share(weight, yes),
    }


def estimate(draws: Float[np.ndarray, " draw"]) -> dict[str, float] | None:
    """A number, which stands first, with the 95% interval of its draws; None where undefined."""
    if not np.isfinite(draws[0]):
        return None
    low, high = interval(draws[1:].tolist())
    numbers = {"value": float(draws[0]), "low": low, "high": high}
    return {name: round(number, 6) + 0.0 for name, number in numbers.items()}  # no minus zero


def _share(
    weight: Float[np.ndarray, "draw question"], right: Bool[np.ndarray, "setting question"]
) -> Draws:
    """Weighted share of the questions with weight for which something holds."""
    whole = weight.sum(axis=1, keepdims=True)
    part = weight @ right.T.astype(float)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _auc(
    truth: Bool[np.ndarray, " question"],
    margin: Float[np.ndarray, " question"],
    weight: Float[np.ndarray, "draw question"],
) -> Float[np.ndarray, " draw"]:
    """Probability that a true yes has the larger margin than a true no; ties count half."""
    order = np.argsort(margin, kind="stable")
    first = np.flatnonzero(np.diff(margin[order], prepend=-np.inf))  # of each run of equal margins
    yes, no = (
        np.add.reduceat((weight * side)[:, order], first, axis=1) for side in (truth, ~truth)
    )
    pairs = yes.sum(axis=1) * no.sum(axis=1)
    below = np.cumsum(no, axis=1) - no
    won = (yes * (below + no / 2)).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)
