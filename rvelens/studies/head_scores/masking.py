"""What masking the heads that a score ranks first costs, against random heads of the same layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from rvelens.heads.profile import ARSProfile
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.margins import MARGIN_METRICS, Draws, to_estimate
from rvelens.studies.masking.masks import RANDOM, SENSITIVE, choose_masks, settled_counts
from rvelens.studies.masking.study import figures_of, margins_under

MIN_DRAWS = 20
DRAWS = "random draws"  # The mean of all random orders, beside the one order of the score "random".


def costs(
    setup: Setup, profiles: Mapping[str, ARSProfile], layers: Sequence[int]
) -> dict[str, Any]:
    """By score: accuracy and AUC by number of masked heads, and differences from random heads.

    Random heads are the same draws for every score. Differences are paired, on the same questions
    and draws of photographs, and averaged over the counts between none and all heads.
    "random_orders" holds the least and the most that a random order differs from their mean.
    """
    n_heads, n_random = setup.model.n_heads, setup.options["n_random"]
    counts = settled_counts(setup.options["counts"], n_heads)
    by_score = {
        name: choose_masks(profile, layers, counts, 0, setup.seed)[SENSITIVE][0]
        for name, profile in profiles.items()
    }
    any_profile = next(iter(profiles.values()))
    by_draw = choose_masks(any_profile, layers, counts, n_random, setup.seed)[RANDOM]
    every = [*by_score.values(), *by_draw]
    distinct = list(dict.fromkeys(mask for masks in every for mask in masks))
    items = setup.benchmark.sample(setup.options["n_questions"]).items
    margins = margins_under(setup, items, distinct)
    figures = figures_of([item for item in items if item.id in margins], margins, setup.seed)
    matters = np.array([0 < n < n_heads for n in counts])
    column = {mask: n for n, mask in enumerate(distinct)}
    mine = {name: [column[mask] for mask in masks] for name, masks in by_score.items()}
    random = np.array([[column[mask] for mask in masks] for masks in by_draw])
    return {
        "questions": len(margins),
        "counts": counts,
        "layers": list(layers),
        "draws": n_random,
        "scores": _by_score(figures, mine, random, matters),
        "random_orders": _random_orders(figures, random, matters),
    }


def _random_orders(
    figures: Mapping[str, Draws],
    random: Int[np.ndarray, "order count"],
    matters: Bool[np.ndarray, " count"],
) -> dict[str, Any]:
    """By metric: each random order minus the mean of all, from the least to the most."""
    result = {}
    for metric in MARGIN_METRICS:
        values = figures[metric][0, random]
        less = (values - values.mean(axis=0))[:, matters].mean(axis=1)
        low, high = (round(float(end), 6) + 0.0 for end in (less.min(), less.max()))
        result[metric] = {"value": 0.0, "low": low, "high": high}
    return result


def _by_score(
    figures: Mapping[str, Draws],
    by_score: Mapping[str, Sequence[int]],
    random: Int[np.ndarray, "order count"],
    matters: Bool[np.ndarray, " count"],
) -> dict[str, Any]:
    """Curves and differences, by score and of the mean order; `by_score` and `random` are columns."""
    result: dict[str, Any] = {}
    for name, columns in {**by_score, DRAWS: None}.items():
        result[name] = {}
        for metric in MARGIN_METRICS:
            chance = figures[metric][:, random].mean(axis=1)
            mine = chance if columns is None else figures[metric][:, columns]
            result[name][metric] = {
                "curve": [to_estimate(draws) for draws in mine.T],
                "less_random": to_estimate((mine - chance)[:, matters].mean(axis=1)),
            }
    return result
