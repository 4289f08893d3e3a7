"""The settings that are compared, and how the tuned ones are chosen on validation questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rvelens.heads.layers import format_layers, parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.hooks import region_hooks, rve_hooks
from rvelens.hooks.rve import mask_hooks
from rvelens.model.hook_root import Hooks
from rvelens.speed.clock import Tracker
from rvelens.stats import auc
from rvelens.studies.demo.questions import QuestionSet, RegionHooks

K, ALPHA, BETA = 5, 0.05, 1.0
ALPHAS, BETAS = (0.05, 0.1, 0.2), (0.5, 1.0, 2.0)
DEFAULT, TUNED = "RVE, paper's defaults", "RVE, tuned"
CONTROL, CONTROL_TUNED = "mask from all heads (control)", "mask from all heads, tuned (control)"
ORACLE = "oracle: true region, tuned"


@dataclass(frozen=True)
class DemoSetting:
    """One way to steer: what it is called in the table, and its hooks for a batch's regions."""

    described: str
    hooks: RegionHooks


def choose_settings(
    profile: ARSProfile, validation: QuestionSet, fault: Hooks, progress: Tracker
) -> dict[str, DemoSetting]:
    """RVE and its control at the paper's defaults and tuned, and the oracle tuned.

    Tuning takes the setting with the best validation AUC out of the same bands, shares and
    strengths for all three (the oracle has no share to choose).

    Args:
        profile: head ranking.
        validation: the questions to choose on.
        fault: hooks that come before those of every setting.
        progress: wraps the iterations over batches, for a progress bar.
    """
    n_layers, n_heads = profile.n_layers, profile.n_heads
    k = min(K, n_heads // 2)
    everyone = list(range(n_heads))

    def rve(layers: Sequence[int], alpha: float, beta: float) -> DemoSetting:
        hooks = [*fault, *rve_hooks(profile, layers, k, alpha, beta)]
        return DemoSetting(
            f"{_named(layers)}, K {k}, alpha {alpha}, beta {beta}", lambda region: hooks
        )

    def control(layers: Sequence[int], alpha: float, beta: float) -> DemoSetting:
        hooks = [*fault, *mask_hooks(dict.fromkeys(layers, everyone), n_heads, alpha, beta)]
        return DemoSetting(f"{_named(layers)}, alpha {alpha}, beta {beta}", lambda region: hooks)

    def oracle(layers: Sequence[int], beta: float) -> DemoSetting:
        return DemoSetting(
            f"{_named(layers)}, beta {beta}",
            lambda region: [*fault, *region_hooks(region, layers, beta)],
        )

    preset = parse_layers("preset", profile, n_layers)
    grid = [(band, a, b) for band in layer_bands(n_layers) for a in ALPHAS for b in BETAS]
    strengths = [(band, b) for band in layer_bands(n_layers) for b in BETAS]
    return {
        DEFAULT: rve(preset, ALPHA, BETA),
        TUNED: _best(validation, [rve(*x) for x in grid], progress),
        CONTROL: control(preset, ALPHA, BETA),
        CONTROL_TUNED: _best(validation, [control(*x) for x in grid], progress),
        ORACLE: _best(validation, [oracle(*x) for x in strengths], progress),
    }


def layer_bands(n_layers: int) -> list[list[int]]:
    """Contiguous bands of layers that are tried: singles, pairs, triples, halves, and all."""
    widths = sorted({w for w in (1, 2, 3, n_layers // 2, n_layers) if 0 < w <= n_layers})
    return [
        list(range(start, start + width))
        for width in widths
        for start in range(n_layers - width + 1)
    ]


def _best(validation: QuestionSet, tried: list[DemoSetting], progress: Tracker) -> DemoSetting:
    margins = validation.margins_each([setting.hooks for setting in tried], progress)
    return tried[int(np.argmax([auc(validation.truth, margin) for margin in margins]))]


def _named(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {format_layers(layers)}"
