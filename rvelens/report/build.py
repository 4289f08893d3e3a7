"""Measure everything the demo and the model card report.

Settings are chosen on the validation split and reported once on the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from rvelens.ars import ARSProfile, score_heads
from rvelens.benchmarks.action_scenes import contrastive_pairs, make_questions
from rvelens.hooks import dilution_hooks, region_hooks, rve_hooks
from rvelens.hooks.rve import mask_hooks
from rvelens.layers import parse_layers
from rvelens.metrics import Metric, accuracy, auc, estimate, estimate_gain, f1, yes_ratio
from rvelens.model import HookedLVLM
from rvelens.report.localisation import enrichment, region_auc
from rvelens.report.questions import Progress, QuestionSet, Setting, prefill_questions

GROUPS = ("PC-yes", "PC-no", "CP-yes", "CP-no")
K, ALPHA, BETA = 5, 0.05, 1.0
# Settings that tuning tries, on validation questions only.
ALPHAS, BETAS = (0.05, 0.1, 0.2), (0.5, 1.0, 2.0)
# The injected faults: image scores scaled, or lowered, in every layer.
DILUTIONS = {"scaled by 0.35": (0.35, 0.0), "lowered by 9": (1.0, -9.0)}


@dataclass(frozen=True)
class Report:
    """All measurements, as plain numbers: `data` is what `to_json` returns."""

    data: dict[str, Any]
    profile: ARSProfile = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The measurements as JSON types."""
        return self.data


def run(
    model: HookedLVLM,
    n_test: int = 1000,
    n_validation: int = 600,
    n_pairs: int = 128,
    seed: int = 55,
    batch_size: int = 50,
    progress: Progress = iter,
) -> Report:
    """Measure a model on action scenes; numbers with 95% bootstrap intervals over scenes.

    Args:
        model: any hooked model with a single patch grid.
        n_test, n_validation: questions of each split.
        n_pairs: contrastive pairs that ARS is averaged over.
        seed: of the questions and of the bootstrap.
        batch_size: questions per forward.
        progress: wraps the longer iterations, for a progress bar.
    """
    pairs = contrastive_pairs("validation", n_pairs, seed)
    profile = score_heads(model, pairs, batch_size=batch_size // 2, progress=progress)
    validation, test = (
        prefill_questions(model, make_questions(split, n, seed), batch_size, progress)
        for split, n in (("validation", n_validation), ("test", n_test))
    )
    plain = test.margins()
    data = {
        "model": model.name,
        "layers": model.n_layers,
        "heads": model.n_heads,
        "image_tokens": int(test.region.shape[1]),
        "n_test": len(test.truth),
        "n_validation": len(validation.truth),
        "n_pairs": n_pairs,
        "seed": seed,
        "groups": _by_group(test, plain, seed),
        **_heads(test, profile, seed),
        "steering": _steering(model, profile, validation, test, [], progress, seed),
        "injected_faults": {
            name: _steering(
                model,
                profile,
                validation,
                test,
                dilution_hooks(range(model.n_layers), *fault),
                progress,
                seed,
            )
            for name, fault in DILUTIONS.items()
        },
    }
    return Report(data, profile)


def _by_group(test: QuestionSet, margins: np.ndarray, seed: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    masks = {group: test.group == group for group in GROUPS}
    masks["PC"] = np.isin(test.group, ["PC-yes", "PC-no"])
    masks["CP"] = np.isin(test.group, ["CP-yes", "CP-no"])
    masks["all"] = np.ones(len(test.truth), dtype=bool)
    for name, mask in masks.items():
        metrics = {"accuracy": accuracy, "yes_ratio": yes_ratio}
        if "-" not in name:  # F1 and AUC need both answers among the questions
            metrics |= {"f1": f1, "auc": auc}
        rows[name] = {"n": int(mask.sum())} | {
            metric: estimate(
                f, test.truth[mask], margins[mask], test.cluster[mask], seed=seed
            ).to_json()
            for metric, f in metrics.items()
        }
    return rows


def _heads(test: QuestionSet, profile: ARSProfile, seed: int) -> dict[str, Any]:
    """Image attention by layer, ARS, and whether the heads that ARS ranks high find the region."""
    attention = test.attention()
    found = region_auc(attention, test.region)
    enriched = enrichment(attention, test.region)
    k = min(K, profile.n_heads // 2)
    layers = []
    for layer in range(profile.n_layers):
        top, bottom = profile.top(layer, k), profile.bottom(layer, k)
        layers.append(
            {
                "image_attention": _round(attention[:, layer].sum(-1).mean()),
                "ars": _round(profile.scores[layer].mean()),
                "auc_top": _round(found[:, layer, top].nanmean()),
                "auc_bottom": _round(found[:, layer, bottom].nanmean()),
                "enrichment_top": _round(enriched[:, layer, top].nanmean()),
                "enrichment_bottom": _round(enriched[:, layer, bottom].nanmean()),
            }
        )
    mean_auc = found.nanmean(dim=0)
    return {
        "by_layer": layers,
        "ars": [[_round(x) for x in row] for row in profile.scores],
        "region_auc": [[_round(x) for x in row] for row in mean_auc],
        "ars_vs_region_auc": {
            "all_heads": _spearman(profile.scores.flatten(), mean_auc.flatten()),
            "within_layer": [
                _spearman(a, b) for a, b in zip(profile.scores, mean_auc, strict=True)
            ],
        },
    }


def _steering(
    model: HookedLVLM,
    profile: ARSProfile,
    validation: QuestionSet,
    test: QuestionSet,
    fault: list[tuple[str, Any]],
    progress: Progress,
    seed: int,
) -> dict[str, Any]:
    """RVE, its control and the oracle, against the plain model, all under the same fault."""
    base: Setting = lambda region: fault  # noqa: E731
    before = test.margins(base)
    preset = parse_layers("preset", profile, model.n_layers)
    k = min(K, model.n_heads // 2)
    settings = {
        "RVE, paper's defaults": (
            f"layers {_span(preset)}, K {k}, alpha {ALPHA}, beta {BETA}",
            lambda region: fault + rve_hooks(profile, preset, k, ALPHA, BETA),
        ),
        "RVE, tuned on validation": _tuned(model, profile, validation, fault, progress),
        "mask from all heads (control)": (
            f"layers {_span(preset)}, alpha {ALPHA}, beta {BETA}",
            lambda region: fault + all_heads(model, preset),
        ),
        "oracle: true region": _best_band(model, validation, fault, progress),
    }
    rows = {"plain": {"setting": "", **_row(test, before, seed)}}
    for name, (description, setting) in settings.items():
        after = test.margins(setting)
        gains = {
            f"{metric}_gain": estimate_gain(
                f, test.truth, before, after, test.cluster, seed=seed
            ).to_json()
            for metric, f in (("accuracy", accuracy), ("auc", auc))
        }
        rows[name] = {"setting": description, **_row(test, after, seed), **gains}
    return rows


def all_heads(model: HookedLVLM, layers: Sequence[int]) -> list[tuple[str, Any]]:
    """The control: enhance what the mean of all heads looks at most, without ranking any."""
    everyone = list(range(model.n_heads))
    return mask_hooks({layer: everyone for layer in layers}, model.n_heads, ALPHA, BETA)


def _row(test: QuestionSet, margins: np.ndarray, seed: int) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "auc": auc, "yes_ratio": yes_ratio}
    row = {
        name: estimate(f, test.truth, margins, test.cluster, seed=seed).to_json()
        for name, f in metrics.items()
    }
    right = (margins > 0) == test.truth
    return row | {"by_group": {g: _round(right[test.group == g].mean()) for g in GROUPS}}


def bands(n_layers: int) -> list[list[int]]:
    """Contiguous bands of layers that are tried: singles, pairs, triples, and halves."""
    widths = sorted({1, 2, 3, n_layers // 2, n_layers})
    return [
        list(range(start, start + width))
        for width in widths
        for start in range(n_layers - width + 1)
    ]


def _tuned(
    model: HookedLVLM,
    profile: ARSProfile,
    validation: QuestionSet,
    fault: list[tuple[str, Any]],
    progress: Progress,
) -> tuple[str, Setting]:
    """The RVE setting with the best validation accuracy."""
    tried = [
        (layers, min(K, model.n_heads // 2), alpha, beta)
        for layers in bands(model.n_layers)
        for alpha in ALPHAS
        for beta in BETAS
    ]

    def setting(layers: list[int], k: int, alpha: float, beta: float) -> Setting:
        hooks = fault + rve_hooks(profile, layers, k, alpha, beta)
        return lambda region: hooks

    best = _best(validation, accuracy, tried, setting, progress)
    layers, k, alpha, beta = best
    return f"layers {_span(layers)}, K {k}, alpha {alpha}, beta {beta}", setting(*best)


def _best_band(
    model: HookedLVLM,
    validation: QuestionSet,
    fault: list[tuple[str, Any]],
    progress: Progress,
) -> tuple[str, Setting]:
    """The band and strength in which boosting the true region helps most on validation."""

    def setting(layers: list[int], beta: float) -> Setting:
        return lambda region: fault + region_hooks(region, layers, beta)

    tried = [(layers, beta) for layers in bands(model.n_layers) for beta in BETAS]
    best = _best(validation, auc, tried, setting, progress)
    return f"layers {_span(best[0])}, beta {best[1]}", setting(*best)


def _best(
    validation: QuestionSet, metric: Metric, tried: list[Any], setting: Any, progress: Progress
) -> Any:
    def score(choice: Any) -> float:
        return metric(validation.truth, validation.margins(setting(*choice)))

    scores = [score(choice) for choice in progress(tried)]
    return tried[int(np.argmax(scores))]


def _span(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"


def _spearman(a: Float[Tensor, " head"], b: Float[Tensor, " head"]) -> float:
    return _round(spearmanr(a.numpy(), b.numpy()).statistic)


def _round(x: Any) -> float:
    return round(float(x), 6)
