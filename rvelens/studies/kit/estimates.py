"""Estimates over questions, in the form in which studies keep them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int

from rvelens.metrics import Estimate

Kept = dict[str, float] | None
FEW = 20  # Below so many photographs an interval says little.


def clusters(names: Iterable[Hashable]) -> Int[np.ndarray, " question"]:
    """A number for each question's photograph, the same where the name is the same."""
    order: dict[Hashable, int] = {}
    return np.array([order.setdefault(name, len(order)) for name in names], dtype=np.int64)


def means(
    values: Float[np.ndarray, "question number"],
) -> Callable[[Int[np.ndarray, " draw"]], Float[np.ndarray, " number"]]:
    """A statistic for `metrics.bootstrap_each`: the mean of each column over the questions drawn.

    NaN is left out; a column of nothing else has the mean NaN.
    """
    known = np.isfinite(values)
    filled, known = np.where(known, values, 0.0), known.astype(float)

    def of(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        times = np.bincount(drawn, minlength=len(filled)).astype(float)
        n = times @ known
        return np.divide(times @ filled, n, out=np.full(n.shape, np.nan), where=n > 0)

    return of


def kept(estimate: Estimate) -> Kept:
    """As JSON; None where it is not a number."""
    return estimate.to_json() if math.isfinite(estimate.value) else None


def above(
    estimate: Mapping[str, float], level: float = 0.0, upper: float | None = None
) -> bool | None:
    """Whether it lies above a level (true) or below (false); None where its interval holds it.

    With `upper`: above the upper level, below the lower one, or None where it reaches what is between.
    """
    if estimate["low"] > (level if upper is None else upper):
        return True
    return False if estimate["high"] < level else None


def ends(estimate: Mapping[str, float]) -> str:
    """A signed number with its interval, for sentences."""
    return f"{estimate['value']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"
