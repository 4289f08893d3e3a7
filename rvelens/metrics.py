"""Yes/no metrics with bootstrap intervals. Yes is the positive class throughout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Metric = Callable[[Bool[np.ndarray, " question"], Float[np.ndarray, " question"]], float]


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, float]:
        """Value, low and high, rounded to six digits."""
        return {name: round(number, 6) for name, number in asdict(self).items()}


def accuracy(truth: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"]) -> float:
    """Share of questions answered right; the answer is yes where the yes-minus-no logit is > 0."""
    return float(np.mean((margin > 0) == truth))


def yes_ratio(
    truth: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"]
) -> float:
    """Share of questions answered yes."""
    return float(np.mean(margin > 0))


def f1(truth: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"]) -> float:
    """2 TP / (2 TP + FP + FN); NaN where there is neither a yes answer nor a true yes."""
    yes = margin > 0
    denominator = yes.sum() + truth.sum()
    return float(2 * (yes & truth).sum() / denominator) if denominator else float("nan")


def auc(truth: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"]) -> float:
    """Probability that a true yes has the larger margin than a true no; ties count half.

    NaN where all truths are the same, or a margin is NaN.
    """
    yes, no = margin[truth], np.sort(margin[~truth])
    if not yes.size or not no.size or np.isnan(margin).any():
        return float("nan")
    won = np.searchsorted(no, yes, "left").sum() + np.searchsorted(no, yes, "right").sum()
    return float(won / 2 / (yes.size * no.size))


def estimate(
    metric: Metric,
    truth: Bool[np.ndarray, " question"],
    margin: Float[np.ndarray, " question"],
    cluster: Int[np.ndarray, " question"],
    n_resamples: int = 1000,
    seed: int = 55,
) -> Estimate:
    """A metric with its 95% percentile bootstrap interval.

    Args:
        metric: function of truth and margin.
        truth: whether yes is right.
        margin: yes-minus-no logit.
        cluster: what is resampled as one, such as the image of each question.
        n_resamples: bootstrap draws.
        seed: of the draws.
    """
    return bootstrap(lambda i: metric(truth[i], margin[i]), cluster, n_resamples, seed)


def estimate_gain(
    metric: Metric,
    truth: Bool[np.ndarray, " question"],
    before: Float[np.ndarray, " question"],
    after: Float[np.ndarray, " question"],
    cluster: Int[np.ndarray, " question"],
    n_resamples: int = 1000,
    seed: int = 55,
) -> Estimate:
    """Paired difference of a metric on the same questions, after minus before."""

    def gain(i: Int[np.ndarray, " draw"]) -> float:
        return metric(truth[i], after[i]) - metric(truth[i], before[i])

    return bootstrap(gain, cluster, n_resamples, seed)


def bootstrap(
    statistic: Callable[[Int[np.ndarray, " draw"]], float],
    cluster: Int[np.ndarray, " question"],
    n_resamples: int = 1000,
    seed: int = 55,
) -> Estimate:
    """Any statistic of question indices, with its 95% percentile bootstrap interval.

    Args:
        statistic: function of the indices of the questions drawn.
        cluster: what is resampled as one, such as the image of each question.
        n_resamples: bootstrap draws.
        seed: of the draws.
    """
    (found,) = bootstrap_each(lambda i: np.array([statistic(i)]), cluster, n_resamples, seed)
    return found


def bootstrap_each(
    statistic: Callable[[Int[np.ndarray, " draw"]], Float[np.ndarray, " number"]],
    cluster: Int[np.ndarray, " question"],
    n_resamples: int = 1000,
    seed: int = 55,
) -> list[Estimate]:
    """Several statistics on the same draws, each with its interval; otherwise as `bootstrap`."""
    draws = [statistic(i) for i in resamples(cluster, n_resamples, seed)]
    whole = statistic(np.arange(len(cluster)))
    return [
        Estimate(float(value), *interval(drawn.tolist()))
        for value, drawn in zip(whole, np.stack(draws, axis=1), strict=True)
    ]


def resamples(
    cluster: Int[np.ndarray, " question"], n_resamples: int, seed: int
) -> list[Int[np.ndarray, " _"]]:
    """Question indices of each bootstrap draw of whole clusters."""
    rng = np.random.default_rng(seed)
    _, labels = np.unique(cluster, return_inverse=True)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    draws = rng.integers(len(members), size=(n_resamples, len(members)))
    if len(members) == len(labels):  # one question a cluster: no need to join lists
        flat = np.concatenate(members)
        return [flat[draw] for draw in draws]
    return [np.concatenate([members[j] for j in draw]) for draw in draws]


def interval(values: list[float]) -> tuple[float, float]:
    """2.5th and 97.5th percentile; draws in which the metric is undefined are left out."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
