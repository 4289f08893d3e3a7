"""Measure everything the demo and the model card report.

Settings are chosen by AUC on the validation split, which a bias towards yes does not move, and
reported once on the test split. The controls are tuned over the same settings as RVE.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from rvelens.benchmarks.action_scenes import GROUPS, contrastive_pairs, make_questions
from rvelens.heads.profile import ARSProfile
from rvelens.heads.region import enrichment, rank_correlations, region_auc
from rvelens.hooks import dilution_hooks
from rvelens.model.hook_root import Hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.scores import score_heads
from rvelens.speed.clock import Tracker
from rvelens.stats import (
    Metric,
    accuracy,
    auc,
    bootstrap,
    estimate,
    estimate_gain,
    f1,
    yes_ratio,
)
from rvelens.studies.demo.questions import QuestionSet, prefill_questions
from rvelens.studies.demo.settings import CONTROL_TUNED, TUNED, K, choose_settings

# The injected faults, in every layer, last token's row: image scores scaled, or lowered.
DILUTIONS = {"scaled by 0.35": (0.35, 0.0), "lowered by 9": (1.0, -9.0)}


@dataclass(frozen=True)
class DemoReport:
    """All measurements, as plain numbers: `data` is what `to_json` returns."""

    data: dict[str, Any]
    profile: ARSProfile = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The measurements as JSON types."""
        return self.data


def run_demo(
    model: HookedLVLM,
    n_test: int = 1000,
    n_validation: int = 400,
    n_pairs: int = 128,
    seed: int = 55,
    batch_size: int = 50,
    progress: Tracker = iter,
) -> DemoReport:
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
    everywhere = model.attention_layers
    faults = {name: dilution_hooks(everywhere, *fault) for name, fault in DILUTIONS.items()}
    data = {
        "model": model.name,
        "layers": model.n_layers,
        "heads": model.n_heads,
        "image_tokens": int(test.region.shape[1]),
        "n_test": len(test.truth),
        "n_validation": len(validation.truth),
        "n_pairs": n_pairs,
        "seed": seed,
        "groups": _by_group(test, test.margins(), seed),
        "heads_and_region": heads_and_region(test, profile, seed),
        "steering": steering(profile, validation, test, [], progress, seed),
        "injected_faults": {
            name: steering(profile, validation, test, fault, progress, seed)
            for name, fault in faults.items()
        },
    }
    return DemoReport(data, profile)


def _by_group(
    test: QuestionSet, margins: Float[np.ndarray, " question"], seed: int
) -> dict[str, Any]:
    """Accuracy, yes-ratio, F1 and AUC of each group, and how far CP-no lies below PC-no."""
    rows: dict[str, Any] = {}
    masks = {group: test.group == group for group in GROUPS}
    masks["PC"] = np.isin(test.group, ["PC-yes", "PC-no"])
    masks["CP"] = np.isin(test.group, ["CP-yes", "CP-no"])
    masks["all"] = np.ones(len(test.truth), dtype=bool)
    for name, mask in masks.items():
        metrics: dict[str, Metric] = {"accuracy": accuracy, "yes_ratio": yes_ratio}
        if "-" not in name:  # F1 and AUC need both answers among the questions
            metrics |= {"f1": f1, "auc": auc}
        rows[name] = {"n": int(mask.sum())} | {
            metric: estimate(
                f, test.truth[mask], margins[mask], test.cluster[mask], seed=seed
            ).to_json()
            for metric, f in metrics.items()
        }
    right = (margins > 0) == test.truth

    def gap(i: np.ndarray) -> float:
        easy, hard = (right[i][test.group[i] == name] for name in ("PC-no", "CP-no"))
        # A small draw may hold none of a group; the interval leaves it out.
        return float(easy.mean() - hard.mean()) if easy.size and hard.size else float("nan")

    return {"rows": rows, "cp_no_gap": bootstrap(gap, test.cluster, seed=seed).to_json()}


def heads_and_region(test: QuestionSet, profile: ARSProfile, seed: int) -> dict[str, Any]:
    """Image attention by layer, ARS, and whether the heads that ARS ranks high find the region."""
    attention = test.attention()
    aucs = region_auc(attention, test.region)
    enriched = enrichment(attention, test.region)
    k = min(K, profile.n_heads // 2)
    layers = []
    for layer in range(profile.n_layers):
        top, bottom = profile.top(layer, k), profile.bottom(layer, k)
        layers.append(
            {
                "image_attention": _round(attention[:, layer].sum(-1).mean()),
                "ars": _round(profile.scores[layer].mean()),
                "auc_top": _round(aucs[:, layer, top].nanmean()),
                "auc_bottom": _round(aucs[:, layer, bottom].nanmean()),
                "enrichment_top": _round(enriched[:, layer, top].nanmean()),
                "enrichment_bottom": _round(enriched[:, layer, bottom].nanmean()),
            }
        )
    values = aucs.numpy()
    scores = profile.scores.numpy()

    def agreement(i: np.ndarray) -> float:
        return float(np.mean(rank_correlations(scores, np.nanmean(values[i], axis=0))))

    mean = np.nanmean(values, axis=0)
    return {
        "by_layer": layers,
        "ars": _round_all(profile.scores.numpy()),
        "region_auc": _round_all(mean),
        "rank_correlation": {
            "all_heads": _round(spearmanr(profile.scores.flatten(), mean.flatten())[0]),
            "by_layer": [_round(x) for x in rank_correlations(scores, mean)],
            "mean_within_layers": bootstrap(agreement, test.cluster, seed=seed).to_json(),
        },
    }


def steering(
    profile: ARSProfile,
    validation: QuestionSet,
    test: QuestionSet,
    fault: Hooks,
    progress: Tracker,
    seed: int,
) -> dict[str, Any]:
    """RVE, controls and oracle against the plain model, all under the same fault."""
    before = test.margins(lambda region: fault)
    settings = choose_settings(profile, validation, fault, progress)
    margins = {name: test.margins(setting.hooks) for name, setting in settings.items()}
    rows = {"plain": {"setting": "", **_row(test, before, seed)}}
    for name, after in margins.items():
        gains = _gains(test, before, after, seed, "gain")
        rows[name] = {"setting": settings[name].described, **_row(test, after, seed), **gains}
    rows[TUNED] |= _gains(test, margins[CONTROL_TUNED], margins[TUNED], seed, "over_control")
    image = test.attention(lambda region: fault).sum(-1).mean()
    return {"image_attention": _round(image), "rows": rows}


def _gains(
    test: QuestionSet, before: np.ndarray, after: np.ndarray, seed: int, suffix: str
) -> dict[str, Any]:
    return {
        f"{metric}_{suffix}": estimate_gain(
            f, test.truth, before, after, test.cluster, seed=seed
        ).to_json()
        for metric, f in (("accuracy", accuracy), ("auc", auc))
    }


def _row(test: QuestionSet, margins: np.ndarray, seed: int) -> dict[str, Any]:
    metrics: dict[str, Metric] = {"accuracy": accuracy, "auc": auc, "yes_ratio": yes_ratio}
    row = {
        name: estimate(f, test.truth, margins, test.cluster, seed=seed).to_json()
        for name, f in metrics.items()
    }
    right = (margins > 0) == test.truth
    return row | {"by_group": {g: _round(right[test.group == g].mean()) for g in GROUPS}}


def _round(x: Any) -> float:
    return round(float(x), 6)


def _round_all(x: Float[np.ndarray, "layer head"]) -> list[list[float]]:
    return [[_round(value) for value in row] for row in x]
