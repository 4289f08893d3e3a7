"""Metrics of yes/no answers, the cluster bootstrap, AUC, McNemar's test, and estimates.

Yes is the positive class throughout. An interval is a 95% percentile interval over photographs, which
are drawn whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Metric = Callable[[Bool[np.ndarray, " question"], Float[np.ndarray, " question"]], float]
FEW = 20  # With fewer photographs an interval is not reliable.


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def from_draws(cls, value: float, draws: Float[np.ndarray, " draw"]) -> Estimate:
        """A number with its interval over bootstrap draws; undefined draws are left out."""
        finite = draws[np.isfinite(draws)]
        if not finite.size:
            return cls(float(value), math.nan, math.nan)
        low, high = np.percentile(finite, [2.5, 97.5])
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return format_estimate(self)

    def to_json(self) -> dict[str, float]:
        """Value, low and high, rounded to six digits; without a minus before zero."""
        return {name: round(number, 6) + 0.0 for name, number in asdict(self).items()}

    def to_json_or_none(self) -> dict[str, float] | None:
        """As `to_json`; None where the value is undefined."""
        return self.to_json() if math.isfinite(self.value) else None


def format_estimate(estimate: Estimate | Mapping[str, float], *, signed: bool = False) -> str:
    """An estimate, or its JSON, as it is printed everywhere: "0.713 [0.700, 0.720]".

    Args:
        estimate: with value, low and high.
        signed: write a plus before positive numbers, as for a difference.
    """
    numbers = asdict(estimate) if isinstance(estimate, Estimate) else estimate
    sign = "+" if signed else ""
    value, low, high = (format(numbers[name], f"{sign}.3f") for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def format_change(estimate: Estimate | Mapping[str, float]) -> str:
    """A difference, or its JSON, as it is printed everywhere: "+0.013 [-0.002, +0.028]"."""
    return format_estimate(estimate, signed=True)


def above(
    estimate: Mapping[str, float], level: float = 0.0, upper: float | None = None
) -> bool | None:
    """Whether it lies above a level (true) or below (false); None where its interval holds it.

    With `upper`: above the upper level, below the lower one, or None where it reaches what is between.
    """
    if estimate["low"] > (level if upper is None else upper):
        return True
    return False if estimate["high"] < level else None


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
    return float(auc_of_draws(truth, margin, np.ones((len(truth), 1), dtype=np.int64))[0])


def auc_of_draws(
    truth: Bool[np.ndarray, " question"],
    margin: Float[np.ndarray, " question"],
    times: Int[np.ndarray, "question draw"],
) -> Float[np.ndarray, " draw"]:
    """`auc` of each draw of the questions.

    Args:
        truth, margin: as for `auc`.
        times: how often each draw has each question.
    """
    scores, counts = torch.from_numpy(margin), torch.from_numpy(times)
    yes = torch.from_numpy(truth)
    return auc_of_sides(scores[yes], scores[~yes], (counts[yes], counts[~yes])).numpy()


def auc_of_sides(
    positive: Float[Tensor, "*rows yes"],
    negative: Float[Tensor, "*rows no"],
    times: tuple[Int[Tensor, "yes draw"], Int[Tensor, "no draw"]] | None = None,
) -> Float[Tensor, "*rows_or_draw"]:
    """Probability that a positive score is larger than a negative one; ties count half.

    NaN where a side is empty, or a score is NaN.

    Args:
        positive, negative: the scores; of one row where `times` are given.
        times: how often each draw has each score; None for once each.
    """
    ordered, order = negative.sort(dim=-1)
    first, last = (
        torch.searchsorted(ordered, positive.contiguous(), side=side) for side in ("left", "right")
    )
    if times is None:
        won_twice = (first + last).sum(-1)
        pairs = torch.full_like(won_twice, positive.shape[-1] * negative.shape[-1])
    else:
        yes, no = times
        smaller = torch.nn.functional.pad(no[order].cumsum(0), (0, 0, 1, 0))
        won_twice = (yes * (smaller[first] + smaller[last])).sum(0)
        pairs = yes.sum(0) * no.sum(0)
    unknown = positive.isnan().any(-1) | negative.isnan().any(-1) | (pairs == 0)
    areas = won_twice.to(positive.dtype) / 2 / pairs.to(positive.dtype)
    return areas.masked_fill(unknown, math.nan)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test, which is the sign test: p of so uneven a split by chance alone.

    Args:
        gained, lost: questions that one method alone answers right, and the other one alone.
    """
    from scipy.stats import binomtest  # takes half a second to import

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def clusters(names: Iterable[Hashable]) -> Int[np.ndarray, " question"]:
    """A number for each question's photograph, the same where the name is the same."""
    order: dict[Hashable, int] = {}
    return np.array([order.setdefault(name, len(order)) for name in names], dtype=np.int64)


def means(
    values: Float[np.ndarray, "question number"],
) -> Callable[[Int[np.ndarray, " draw"]], Float[np.ndarray, " number"]]:
    """A statistic for `bootstrap_each`: the mean of each column over the questions drawn.

    NaN is left out; a column of nothing else has the mean NaN.
    """
    finite = np.isfinite(values)
    filled, finite = np.where(finite, values, 0.0), finite.astype(float)

    def of(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        times = np.bincount(drawn, minlength=len(filled)).astype(float)
        n = times @ finite
        return np.divide(times @ filled, n, out=np.full(n.shape, np.nan), where=n > 0)

    return of


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
    (interval,) = bootstrap_each(lambda i: np.array([statistic(i)]), cluster, n_resamples, seed)
    return interval


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
        Estimate.from_draws(value, drawn)
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


def draw_counts(n_clusters: int, n_resamples: int, seed: int) -> Int[np.ndarray, "draw cluster"]:
    """How often each bootstrap draw has each cluster; for statistics of sums over clusters.

    The draws are distributed as those of `resamples`, from other random numbers.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_resamples)
