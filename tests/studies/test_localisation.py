"""Groups of heads against loops, correlation against scipy, sentences, what is refused, resumption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from picture_questions import StopError, few_draws, interrupt_after, questions
from scipy.stats import spearmanr
from tiny_models import build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import scenes
from rvelens.benchmarks.action_scenes import make_questions, patch_mask
from rvelens.hooks import ars_caching_hooks
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study, localisation
from rvelens.studies.kit import rows
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study
from rvelens.studies.localisation import _conclude, _correlation

STUDY = find_study("localisation")
N = 6


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_draws(monkeypatch, localisation)


@pytest.fixture(scope="module")
def some():
    return scenes.load_scenes(n=N)


def measured(model, profile, benchmark, out, batch_size=4, **options):
    return run_study(
        STUDY, model, [benchmark], out, profile=profile, options=options, batch_size=batch_size
    )


def literal(model):
    """AUC of every head by counting, and mass inside over area, for each scene."""
    auc, enrichment = [], []
    for question in make_questions("test", N):
        cache = {}
        with torch.no_grad(), model.hooks(ars_caching_hooks(range(model.n_layers), cache)):
            model(**model.prepare(question.image, question.text))
        side = round(cache[0].shape[-1] ** 0.5)
        region = patch_mask(question.regions["verb"], (side, side), (96, 96)).ravel()
        of_auc, of_mass = [], []
        for layer in range(model.n_layers):
            for a in cache[layer][0].tolist():
                inside = [x for x, r in zip(a, region, strict=True) if r]
                outside = [x for x, r in zip(a, region, strict=True) if not r]
                wins = sum((i > o) + 0.5 * (i == o) for i in inside for o in outside)
                of_auc.append(wins / len(inside) / len(outside))
                of_mass.append(sum(inside) / sum(a) / (len(inside) / len(a)))
        shape = (model.n_layers, model.n_heads)
        auc.append(np.reshape(of_auc, shape))
        enrichment.append(np.reshape(of_mass, shape))
    return np.array(auc), np.array(enrichment)


def test_groups_against_loops(model, profile, some, tmp_path):
    _, _, data = measured(model, profile, some, tmp_path, k=2)
    for name, values in zip(("auc", "enrichment"), literal(model), strict=True):
        gaps = []
        for layer in range(model.n_layers):
            order = sorted(range(8), key=lambda h, n=layer: -float(profile.scores[n, h]))
            most, least = values[:, layer, order[:2]].mean(), values[:, layer, order[-2:]].mean()
            found = {group: of[layer]["value"] for group, of in data[name].items()}
            assert found["most"] == pytest.approx(most, abs=1e-4)
            assert found["least"] == pytest.approx(least, abs=1e-4)
            assert found["all"] == pytest.approx(values[:, layer].mean(), abs=1e-4)
            assert found["difference"] == pytest.approx(most - least, abs=1e-4)
            gaps.append(most - least)
        assert data[name]["difference"][3]["value"] == pytest.approx(np.mean(gaps), abs=1e-4)
        # RVE's preset is layers 1-2 of three.
        assert data["preset"] == [1, 2]
        assert data[name]["difference"][4]["value"] == pytest.approx(np.mean(gaps[1:]), abs=1e-4)
        np.testing.assert_allclose(data["by_head"][name], values.mean(axis=0), atol=1e-4)
    mean = literal(model)[0].mean(axis=0).round(9)  # equal ones tie
    rho = [spearmanr(profile.scores[n], mean[n])[0] for n in range(3)]
    found = data["correlation"]
    assert [one["value"] for one in found["by_layer"]] == pytest.approx(rho, abs=1e-3)
    assert found["within_layers"]["value"] == pytest.approx(np.mean(rho), abs=1e-3)
    over_all = spearmanr(profile.scores.flatten(), mean.flatten())[0]
    assert found["all_heads"]["value"] == pytest.approx(over_all, abs=1e-3)


def test_a_ranking_without_scores_has_no_correlation_over_all_heads(model, profile, some, tmp_path):
    setup, _, data = measured(model, ARSProfile(profile.ranking), some, tmp_path, k=2)
    assert data["ars"] is None
    assert data["correlation"]["all_heads"] is None
    auc = np.array(data["by_head"]["auc"])[None]
    scored = _correlation(auc, profile, np.zeros(1, dtype=int), 0)
    found = data["correlation"]["within_layers"]["value"]
    assert found == pytest.approx(scored["within_layers"]["value"], abs=1e-4)
    axes = STUDY.show(setup, [data]).figures[""].axes[0]
    assert axes.get_xlabel() == "rank in its layer (1: most sensitive)"


def test_correlation_is_resampled_over_scenes_with_their_questions():
    """AUC rises with ARS in one scene and falls in the other; the mean of all is flat."""
    auc = np.array([[[0.1, 0.2, 0.3]], [[0.6, 0.5, 0.4]]])
    profile = ARSProfile.from_scores(torch.tensor([[0.0, 0.5, 1.0]]))
    found = _correlation(auc, profile, np.array([0, 1]), 0)["within_layers"]
    assert (found["low"], found["high"]) == (-1, 1)
    together = _correlation(auc, profile, np.array([0, 0]), 0)["within_layers"]
    assert together["low"] == together["high"] == together["value"]


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
def test_families_with_tiles_or_without_replay(family, profile, some, tmp_path):
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    _, _, data = measured(model, profile, some.keep(some.items[:2]), tmp_path)
    assert data["k"] == 4
    auc = np.array(data["by_head"]["auc"], dtype=float)
    assert (auc >= 0).all()
    assert (auc <= 1).all()
    assert len(set(auc.ravel())) > 3


def test_what_is_refused_before_the_work(model, profile, some, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "last_rows", None)
    with pytest.raises(ValueError, match=r"pictures does not say where in the picture .* \(q0\)"):
        measured(model, profile, questions(), tmp_path / "a")
    with pytest.raises(ValueError, match="k=0 heads: expected at least 1"):
        measured(model, profile, some, tmp_path / "b", k=0)
    hf_model, processor = build("instructblip")
    blip = HookedLVLM.from_pretrained(hf_model, processor=processor)
    with pytest.raises(ValueError, match="the image tokens of instructblip have no position"):
        measured(blip, profile, some, tmp_path / "c")


def test_it_goes_on_after_an_interruption(model, profile, some, tmp_path):
    _, _, whole = measured(model, profile, some, tmp_path / "whole", batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, rows, "last_rows", 2)
        with pytest.raises(StopError):
            measured(model, profile, some, tmp_path / "cut", batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, rows, "last_rows", 9)
        _, _, again = measured(model, profile, some, tmp_path / "cut", batch_size=2)
    assert len(made) == 1
    assert json.dumps(again) == json.dumps(whole)


def example(difference, within):
    def one(low_high):
        low, high = low_high
        return {"value": (low + high) / 2, "low": low, "high": high}

    groups = {group: [one((0.6, 0.7))] * 4 for group in ("most", "least", "all")}
    groups["difference"] = [one((0.1, 0.2)), one((-0.2, -0.1)), one(difference), one((-0.1, 0.1))]
    groups["over_all"] = [one((-0.1, 0.1))] * 4
    correlation = {"within_layers": one(within)}
    return {
        "auc": groups, "enrichment": groups, "correlation": correlation, "preset": [1],
        "rank": [[1], [1]], "k": 5, "photographs": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "within", "verdict"),
    [
        ((0.1, 0.2), (0.1, 0.2), "yes, sensitive heads find it better and AUC rises with ARS"),
        ((-0.2, -0.1), (-0.2, -0.1), "no, sensitive heads find it worse and AUC falls with ARS"),
        ((0.1, 0.2), (-0.1, 0.2), "not shown"),
        ((-0.1, 0.2), (0.1, 0.2), "not shown"),
        ((0.1, 0.2), (-0.2, -0.1), "not shown"),
    ],
)
def test_the_verdict_needs_both_intervals(difference, within, verdict):
    found = example(difference, within)
    assert _conclude(found | {"photographs": 19}) == ["19 photographs are too few to say anything."]
    said = _conclude(found)
    assert said[0].startswith(
        f"Does ARS find the region? Over all layers {verdict}: AUC of sensitive"
    )
    assert "better than insensitive ones in 1 of 2 and worse in 1; in RVE's preset" in said[1]
    assert "no difference of sensitive heads from insensitive ones is confirmed" in said[1]
    assert "0.650, which is above chance" in said[3]


def test_end_to_end(some, tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    profile = ARSProfile.load(TINY / "profile.safetensors")
    setup, made, data = measured(model, profile, some, tmp_path)
    files = write_study(tmp_path, STUDY, [made], [data], STUDY.show(setup, [data]))
    names = {file.name for file in files}
    assert {"localisation.png", "localisation-layers.png", "localisation-enrichment.csv"} <= names
