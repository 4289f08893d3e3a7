"""Which heads are masked together: the most and the least sensitive, random ones; and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rvelens.heads.profile import ARSProfile
from rvelens.studies.kit.margins import MARGIN_METRICS, Draws, to_estimate

SENSITIVE, LEAST, RANDOM = "most sensitive", "least sensitive", "random"
# Heads that are masked, by layer; hashable, so that equal masks are run once.
Mask = tuple[tuple[int, tuple[int, ...]], ...]


def settled_counts(counts: Sequence[Any], n_heads: int) -> list[int]:
    """Heads to mask in each layer, ascending; by default evenly spaced from none to all of them.

    Raises:
        ValueError: something else than whole numbers of heads.
    """
    if not counts:
        step = next(s for s in range(1, n_heads + 1) if n_heads / s <= 8)
        return sorted({*range(0, n_heads, step), n_heads})
    if not all(type(n) is int and 0 <= n <= n_heads for n in counts):
        raise ValueError(
            f"counts={list(counts)}: expected numbers of heads from 0 to {n_heads}, such as "
            f"[0,{n_heads // 2},{n_heads}]; pass [] for an even series."
        )
    return sorted({0, *counts})  # what none loses is what everything is compared with


def choose_masks(
    profile: ARSProfile, layers: Sequence[int], counts: Sequence[int], n_random: int, seed: int
) -> dict[str, list[list[Mask]]]:
    """Masks by way of choosing, then by draw (one but for random), then by count.

    Every mask of a count has so many heads in each of the layers, so that only the choice of heads
    differs. A random draw orders the heads of each layer once: its larger masks hold its smaller ones.

    Args:
        profile: head ranking.
        layers: where heads are masked.
        counts: heads to mask in each of them.
        n_random: random draws.
        seed: of the draws.
    """
    ranked = {layer: profile.top(layer, profile.n_heads) for layer in layers}
    orders = {
        SENSITIVE: [ranked],
        LEAST: [{layer: heads[::-1] for layer, heads in ranked.items()}],
        RANDOM: [],
    }
    for number in range(n_random):
        rng = np.random.default_rng([seed, number])
        orders[RANDOM].append(
            {layer: rng.permutation(profile.n_heads).tolist() for layer in layers}
        )
    return {
        choice: [[_mask(order, n) for n in counts] for order in many]
        for choice, many in orders.items()
    }


def distinct(masks: Mapping[str, Sequence[Sequence[Mask]]]) -> list[Mask]:
    """Every mask of `choose_masks`, each once."""
    return list(dict.fromkeys(mask for many in masks.values() for item in many for mask in item))


def _mask(order: Mapping[int, Sequence[int]], n: int) -> Mask:
    return tuple((layer, tuple(sorted(heads[:n]))) for layer, heads in order.items() if n)


def summary(
    figures: Mapping[str, Draws], at: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, Any]:
    """Curves, and differences of the sensitive and the least sensitive heads from random ones.

    Args:
        figures: figures by metric, one column a mask.
        at: columns by way of choosing, draw (one but for random) and count.

    Returns:
        JSON by way of choosing and metric, with one estimate a count; None where undefined. "curves"
        of random heads are means over their draws. "draws" are these draws, by metric, draw and
        count. "differences" are paired: minus the mean over random draws, at the counts at which
        the choice matters (between no head and all of them). "means" are their means over these.
    """
    means = {
        choice: {
            metric: figures[metric][:, np.array(many)].mean(axis=1) for metric in MARGIN_METRICS
        }
        for choice, many in at.items()
    }
    gaps = {
        choice: {metric: means[choice][metric] - means[RANDOM][metric] for metric in MARGIN_METRICS}
        for choice in (SENSITIVE, LEAST)
    }
    matters = np.not_equal(at[SENSITIVE][0], at[LEAST][0])
    return {
        "curves": {
            choice: {
                metric: [to_estimate(column) for column in draws.T]
                for metric, draws in by_metric.items()
            }
            for choice, by_metric in means.items()
        },
        "draws": {
            metric: [[_number(figures[metric][0, n]) for n in columns] for columns in at[RANDOM]]
            for metric in MARGIN_METRICS
        },
        "differences": {
            choice: {
                metric: [
                    to_estimate(column) if differs else None
                    for column, differs in zip(draws.T, matters, strict=True)
                ]
                for metric, draws in by_metric.items()
            }
            for choice, by_metric in gaps.items()
        },
        "means": {
            choice: {
                metric: to_estimate(draws[:, matters].mean(axis=1)) if matters.any() else None
                for metric, draws in by_metric.items()
            }
            for choice, by_metric in gaps.items()
        },
    }


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
