"""From how many contrastive pairs on the most sensitive heads stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

SETTLED = 0.9  # Mean overlap from which on the most sensitive heads count as settled.


def stability(
    per_pair: Float[np.ndarray, "pair layer head"], k: int, n_draws: int, seed: int
) -> dict[str, Any]:
    """How much the k most sensitive heads of random samples of pairs have in common.

    Args:
        per_pair: equation 3 of each pair.
        k: heads of each layer.
        n_draws: samples of each size.
        seed: of the samples.

    Returns:
        "n", the sizes; by size, "whole", the overlap of a sample with all pairs, and "halves", that of
        two disjoint samples of the size (None where there are too few pairs for two): mean over layers
        and draws, and the middle 95% of the draws; "settled_whole" and "settled_halves", the smallest
        size from which on the mean is at least `SETTLED`, None if there is none.
    """
    n_pairs = len(per_pair)
    rng = np.random.default_rng(seed)
    all_pairs = top_heads(per_pair.mean(axis=0), k)
    sizes = _sizes(n_pairs)
    whole, halves = [], []
    for n in sizes:
        draws = [rng.permutation(n_pairs) for _ in range(n_draws)]
        first = [_top_of(per_pair, draw[:n], k) for draw in draws]
        whole.append(middle_of_draws([overlap(heads, all_pairs, k) for heads in first]))
        halves.append(middle_of_draws(common(per_pair, draws, n, k)) if 2 * n <= n_pairs else None)
    return {
        "n": sizes,
        "n_draws": n_draws,
        "whole": whole,
        "halves": halves,
        "settled_whole": _settled(sizes, whole),
        "settled_halves": _settled(sizes, halves),
    }


def top_heads(scores: Float[np.ndarray, "layer head"], k: int) -> Bool[np.ndarray, "layer head"]:
    """Which heads are the k most sensitive of their layer; of equal ones, those of lower number."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(top, order, True, axis=1)
    return top


def overlap(a: Bool[np.ndarray, "layer head"], b: Bool[np.ndarray, "layer head"], k: int) -> float:
    """Share of the k heads of a layer that both have, mean over layers."""
    return float((a & b).sum(axis=1).mean() / k)


def common(
    per_pair: Float[np.ndarray, "pair layer head"],
    draws: Sequence[Int[np.ndarray, " pair"]],
    n: int,
    k: int,
) -> list[float]:
    """For each order of the pairs, the overlap of its first n pairs' top heads and its next n's."""
    return [
        overlap(_top_of(per_pair, draw[:n], k), _top_of(per_pair, draw[n : 2 * n], k), k)
        for draw in draws
    ]


def _sizes(n_pairs: int) -> list[int]:
    """1, 2, 4, ... below the number of pairs, and half of them."""
    powers = {2**n for n in range(n_pairs.bit_length()) if 2**n < n_pairs}
    return sorted(powers | ({n_pairs // 2} if n_pairs > 1 else set()))


def _top_of(
    per_pair: Float[np.ndarray, "pair layer head"], drawn: Int[np.ndarray, " draw"], k: int
) -> Bool[np.ndarray, "layer head"]:
    return top_heads(per_pair[drawn].mean(axis=0), k)


def middle_of_draws(overlaps: list[float]) -> dict[str, float]:
    """Mean, and the middle 95% of the draws."""
    low, high = np.percentile(overlaps, [2.5, 97.5])
    numbers = {"value": np.mean(overlaps), "low": low, "high": high}
    return {name: round(float(x), 6) for name, x in numbers.items()}


def _settled(sizes: list[int], overlaps: list[dict[str, float] | None]) -> int | None:
    """The smallest size from which on every mean overlap is high enough."""
    smallest = None
    for n, share in reversed(list(zip(sizes, overlaps, strict=True))):
        if share is not None:
            if share["value"] < SETTLED:
                break
            smallest = n
    return smallest
