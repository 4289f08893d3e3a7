"""Steerings that are compared: RVE by each ranking, and what it has to do better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from rvelens.heads.profile import ARSProfile
from rvelens.hooks import region_hooks, rve_hooks
from rvelens.hooks.rve import mask_hooks
from rvelens.interventions.methods import make_method
from rvelens.model.replay import Hooks
from rvelens.studies.kit.base import Batch, HooksOf, Setup
from rvelens.studies.kit.regions import ANSWER_REGION, grid_of, has_regions
from rvelens.studies.kit.settings import of_rve

ALL_HEADS, SWAPPED, ORACLE = "all heads", "swapped heads", "true region"


@dataclass(frozen=True)
class Steering:
    """How a model is steered.

    Attributes:
        start: its published setting, by keyword, from which the search sets out.
        hooks: hooks of a setting, from its keywords; a function of the batch where questions differ.
    """

    start: Mapping[str, Any]
    hooks: Callable[..., Hooks | HooksOf]


def make_steerings(setup: Setup, profiles: Mapping[str, ARSProfile]) -> dict[str, Steering]:
    """RVE by each ranking, then the controls, by name.

    "swapped heads" is RVE by the first ranking turned around, so that the insensitive heads enhance
    and the sensitive ones denoise; "all heads" is equation 6 with the mask of every head's mean, and
    without denoising, which the search may take from RVE too, so that the ranking alone differs;
    "true region" is equation 6 with the region of the answer as its mask, where it is known: what it
    does not gain, no ranking can.
    """
    model, first = setup.model, next(iter(profiles.values()))
    method = make_method("rve", model, first, layers=setup.options["layers"])
    start = of_rve(replace(setup, profile=first, methods=(method,)))
    steerings = {
        name: Steering(start, partial(rve_hooks, profile)) for name, profile in profiles.items()
    }
    turned = ARSProfile(first.ranking.flip(1))
    steerings[SWAPPED] = Steering(start, partial(rve_hooks, turned))

    def all_heads(layers: Sequence[int], alpha: float, beta: float) -> Hooks:
        every = list(range(model.n_heads))
        return mask_hooks(dict.fromkeys(layers, every), model.n_heads, alpha, beta)

    def oracle(layers: Sequence[int], beta: float) -> HooksOf:
        return lambda batch: region_hooks(regions_of(setup, batch), layers, beta)

    steerings[ALL_HEADS] = Steering(
        {axis: start[axis] for axis in ("layers", "alpha", "beta")}, all_heads
    )
    if has_regions(setup):
        steerings[ORACLE] = Steering({axis: start[axis] for axis in ("layers", "beta")}, oracle)
    return steerings


def regions_of(setup: Setup, batch: Batch) -> Bool[Tensor, "batch image"]:
    """Which image tokens show the region of each question's answer."""
    inside = []
    for item, image in zip(batch.items, batch.images, strict=True):
        assert item.regions is not None
        inside.append(
            grid_of(setup.model, image).tokens_in(item.regions()[ANSWER_REGION], image.size)
        )
    longest = max(map(len, inside))
    return torch.from_numpy(np.stack([np.pad(x, (0, longest - len(x))) for x in inside]))
