"""Scores, layers, agreement and sentences of the map of heads; it goes on after an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from picture_questions import StopError, few_draws, interrupt_after, questions
from scipy.stats import spearmanr
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, ContrastivePair, HookedLVLM, score_heads
from rvelens.benchmarks import scenes
from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.evaluate import Decoding
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study
from rvelens.studies.ars_map import agreement
from rvelens.studies.ars_map import study as ars_map
from rvelens.studies.ars_map.study import thirds
from rvelens.studies.kit import pairs as kit_pairs
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study

STUDY = find_study("ars-map")
PAIRS = tuple(
    ContrastivePair(IMAGES[n % 3], QUESTIONS[k], QUESTIONS[k].replace(old, new), f"{n}{k}")
    for n, (k, old, new) in enumerate(
        [(0, "hold", "eat"), (1, "direct", "big"), (2, "kick", "ride"), (0, "hold", "kick"),
         (2, "kick", "point"), (0, "hold", "ride"), (2, "kick", "hold")]
    )
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_draws(monkeypatch, ars_map, agreement)


def measured(model, out, pairs=PAIRS, **options):
    return run_study(STUDY, model, [questions()], out, pairs=pairs, options=options, batch_size=2)


def test_scores_layers_and_thirds_against_score_heads(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kit_pairs, "CHUNK", 3)
    _, _, data = measured(model, tmp_path)
    profile = score_heads(model, PAIRS, batch_size=2)
    per_pair = profile.per_pair.double().numpy()
    np.testing.assert_allclose(data["scores"], per_pair.mean(0), atol=1e-4)
    by_pair = per_pair.mean(axis=2)
    for layer in range(model.n_layers):
        assert data["by_layer"][layer]["value"] == pytest.approx(by_pair[:, layer].mean(), abs=1e-4)
        quartiles = np.quantile(by_pair[:, layer], [0.25, 0.5, 0.75])
        assert data["quartiles"][layer] == pytest.approx(quartiles, abs=1e-4)
    assert data["middle"]["layers"] == [1]
    gap = by_pair[:, 1].mean() - (by_pair[:, 0].mean() + by_pair[:, 2].mean()) / 2
    assert data["middle"]["minus_outer"]["value"] == pytest.approx(gap, abs=1e-4)
    assert (data["pairs"], data["photographs"], data["k"]) == (7, 3, 4)
    assert data["agreement"] is None


def test_other_texts_are_taken_only_if_they_are_wanted(model, tmp_path):
    pairs = [ContrastivePair(IMAGES[0], "Does a man hold it?", "Is it eaten by a dog?", "p7")]
    with pytest.raises(ValueError, match=r"^pair 'p7': .*any_text \(--any-text\)\.$"):
        measured(model, tmp_path, pairs)
    assert not list(tmp_path.iterdir())
    _, _, data = run_study(STUDY, model, [questions()], tmp_path, pairs=pairs, any_text=True)
    expected = score_heads(model, pairs, any_text=True).scores
    np.testing.assert_allclose(data["scores"], expected, atol=1e-4)


def test_a_suffix_stands_behind_both_texts(model, tmp_path):
    decoding = Decoding(suffix="Please answer with one word.")
    _, _, data = run_study(STUDY, model, [questions()], tmp_path, pairs=PAIRS, decoding=decoding)
    longer = [
        ContrastivePair(p.image, *(f"{t} {decoding.suffix}" for t in (p.question, p.contrastive)))
        for p in PAIRS
    ]
    expected = score_heads(model, longer).scores
    np.testing.assert_allclose(data["scores"], expected, atol=1e-4)
    assert not np.allclose(expected, score_heads(model, PAIRS).scores, atol=1e-3)


def test_thirds():
    assert thirds(2) == ([], [0, 1])
    assert thirds(3) == ([1], [0, 2])
    assert thirds(6) == ([2, 3], [0, 1, 4, 5])
    assert thirds(32)[0] == list(range(11, 21))


def test_it_goes_on_after_an_interruption(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kit_pairs, "CHUNK", 3)
    _, _, whole = measured(model, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, kit_pairs, "score_heads", 2)
        with pytest.raises(StopError):
            measured(model, tmp_path / "cut")
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, kit_pairs, "score_heads", 9)
        _, _, again = measured(model, tmp_path / "cut")
    assert len(made) == 1
    assert json.dumps(again) == json.dumps(whole)


def test_agreement_with_a_profile_against_scipy(model, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "N_PERMUTATIONS", 9)
    generator = torch.Generator().manual_seed(3)
    other = ARSProfile.from_scores(torch.rand(model.n_layers, model.n_heads, generator=generator))
    path = tmp_path / "other.safetensors"
    other.save(path)
    setup, _, data = measured(model, tmp_path / "out", against=str(path))
    rho = [spearmanr(data["scores"][n], other.scores[n].numpy())[0] for n in range(model.n_layers)]
    found = data["agreement"]
    assert [one["value"] for one in found["by_layer"]] == pytest.approx(rho, abs=1e-4)
    assert found["mean"]["value"] == pytest.approx(np.mean(rho), abs=1e-4)
    shown = STUDY.show(setup, [data])
    assert shown.tables[""].columns[-1] == "rank agreement"
    assert "agreement" in shown.figures


def test_a_ranking_agrees_with_itself_and_with_nothing_else(monkeypatch):
    monkeypatch.setattr(agreement, "N_PERMUTATIONS", 99)
    per_pair = np.random.default_rng(0).normal(1, 0.01, (5, 3, 8)) + np.linspace(0, 3, 8)
    cluster = np.arange(5)
    same = ARSProfile.from_scores(torch.tensor(per_pair.mean(axis=0), dtype=torch.float32))
    ranking_only = ARSProfile(same.ranking)
    for other in (same, ranking_only):
        found = agreement.agreement(per_pair, other, cluster, 0)
        assert found["mean"]["value"] == pytest.approx(1)
        assert found["p"] == pytest.approx(1 / 100)
    reversed_one = ARSProfile(same.ranking.flip(1))
    found = agreement.agreement(per_pair, reversed_one, cluster, 0)
    assert found["mean"]["value"] == pytest.approx(-1)
    assert found["p"] == pytest.approx(1)
    said = agreement.conclude_agreement({"model": "m", "agreement": found | {"with": "it"}})
    assert said.startswith("These heads and it do not agree more than chance confirms: mean rank")


def test_the_published_ranking_is_taken_by_name_and_shape(model, profile, monkeypatch):
    def published(name):
        assert name == "llava-1.5-7b"
        return ARSProfile(profile.ranking)

    monkeypatch.setattr(agreement.ARSProfile, "published", published)
    assert agreement.other_ranking(model, "") is None
    model.hf_model.config.name_or_path = "llava-hf/llava-1.5-7b-hf"
    name, ranking = agreement.other_ranking(model, "")
    assert name == "the published ranking of llava-1.5-7b"
    assert torch.equal(ranking.ranking, profile.ranking)
    monkeypatch.setattr(
        agreement.ARSProfile, "published", lambda name: ARSProfile(profile.ranking[:2])
    )
    with pytest.raises(ValueError, match="is of 2 layers with 8 heads, the model has 3 with 8: "):
        agreement.other_ranking(model, "")


def test_what_is_refused_before_the_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kit_pairs, "score_heads", None)
    with pytest.raises(ValueError, match="k=0 and n_draws=50: expected k of at least 1"):
        measured(model, tmp_path / "a", k=0)
    with pytest.raises(ValueError, match="n_draws=49"):
        measured(model, tmp_path / "b", n_draws=49)
    with pytest.raises(ValueError, match="no profile at nowhere"):
        measured(model, tmp_path / "c", against="nowhere")


@pytest.mark.parametrize("family", ["instructblip", "qwen2_5_vl", "llava_next"])
def test_every_family_and_a_single_pair(family, tmp_path):
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    setup, _, data = measured(model, tmp_path, PAIRS[:1])
    assert np.array(data["scores"]).shape == (model.n_layers, model.n_heads)
    if family == "instructblip":
        shown = STUDY.show(setup, [data])
        assert shown.sentences[2] == "1 pair is too few to say how many a ranking takes."
        assert set(shown.figures) == {"", "heads", "layers"}


def gap_of(low, high):
    estimate = {"value": (low + high) / 2, "low": low, "high": high}
    return {"middle": {"layers": [2, 3], "minus_outer": estimate}, "photographs": 20}


def test_middle_layers_are_claimed_only_where_the_interval_says_so():
    assert ars_map._conclude_middle(gap_of(0.1, 0.3)).startswith(
        "Middle layers are more sensitive: "
    )
    assert ars_map._conclude_middle(gap_of(-0.3, -0.1)).startswith(
        "Middle layers are less sensitive: "
    )
    few = ars_map._conclude_middle(gap_of(0.1, 0.3) | {"photographs": 19})
    assert few == "19 photographs are too few to say which layers are more sensitive."
    said = ars_map._conclude_middle(gap_of(-0.1, 0.3))
    assert said.startswith("That middle layers are more sensitive is not shown: ")
    assert said.endswith("(layers 2-3) minus that of the others is +0.100 [-0.100, +0.300].")


def test_the_number_of_pairs_is_that_of_disjoint_samples():
    halves = [{"value": 0.8, "low": 0.7, "high": 0.9}, None]
    found = {"n": [1, 2], "halves": halves, "settled_halves": None, "settled_whole": 2}
    said = ars_map._conclude_pairs({"stability": found, "k": 5, "pairs": 3})
    assert said == (
        "Up to 1 pair, two disjoint samples do not share 90% of the top 5 heads: more pairs are "
        "needed than there are; samples of these pairs share as much with all of them from 2 on."
    )
    said = ars_map._conclude_pairs({"stability": found | {"settled_halves": 1}, "k": 5, "pairs": 3})
    assert said.startswith("Two disjoint samples share 90% of the top 5 heads from 1 pair on; ")


def test_end_to_end(tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    pairs = contrastive_pairs("validation", 4)
    setup, made, data = run_study(STUDY, model, [scenes.load_scenes(n=1)], tmp_path, pairs=pairs)
    files = write_study(tmp_path, STUDY, [made], [data], STUDY.show(setup, [data]))
    assert {"ars-map.csv", "ars-map-stability.png", "ars-map-layers.svg"} <= {f.name for f in files}
