"""Equation 3, profiles and their files; agreement with eager attentions is in tests/families."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import ars as literal_ars
from safetensors.torch import save_file
from tiny_models import IMAGES, QUESTIONS

from rvelens import ARSProfile, ContrastivePair, score_heads
from rvelens.ars import ars

weights = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)


@given(weights, weights)
def test_equation_3_against_loops(a, b):
    score = float(ars(torch.tensor([[a]]), torch.tensor([[b]])))
    assert score == pytest.approx(literal_ars(a, b), abs=1e-4)
    assert 0 <= score <= 2 + 1e-6


def test_known_values():
    a, b = torch.tensor([[[0.3, 0.0]]]), torch.tensor([[[0.0, 0.3]]])
    assert float(ars(a, a)) == 0
    assert float(ars(a, b)) == pytest.approx(math.sqrt(2))
    assert float(ars(a * 0, b * 0)) == 0
    assert float(ars(a * 1e-30, b * 1e-30)) == pytest.approx(math.sqrt(2))
    assert float(ars(a, b * 0)) == pytest.approx(2)


def test_scores_do_not_depend_on_the_batch(model):
    pairs = [
        ContrastivePair(
            image,
            question,
            question.replace("hold", "kick")
            .replace("kick a ball", "eat a ball")
            .replace("direct", "big"),
            str(i),
        )
        for i, (image, question) in enumerate(zip(IMAGES, QUESTIONS, strict=True))
    ]
    together, alone = (score_heads(model, pairs, batch_size=n) for n in (3, 1))
    assert together.scores.shape == (model.n_layers, model.n_heads)
    assert together.per_pair.shape == (3, model.n_layers, model.n_heads)
    torch.testing.assert_close(together.per_pair, alone.per_pair, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.scores, together.per_pair.mean(0))
    assert together.about["n_pairs"] == 3
    assert not model.list_hooks()


def test_pairs_without_a_change_are_refused(model):
    with pytest.raises(ValueError, match="pair 'x': both texts are 'A b'"):
        ContrastivePair(IMAGES[0], "A b", "A b ", "x")
    with pytest.raises(ValueError, match="no contrastive pairs"):
        score_heads(model, [])


def test_top_and_bottom():
    profile = ARSProfile.from_scores(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.5, 0.5, 0.5, 0.1]]))
    assert profile.top(0, 2) == [1, 3]
    assert profile.bottom(0, 2) == [0, 2]
    assert profile.top(1, 3) == [0, 1, 2]  # equal scores in the order of the heads
    assert profile.auto_layers() == [1]
    with pytest.raises(ValueError, match="layer 2 of a profile of 2 layers"):
        profile.top(2, 1)
    with pytest.raises(ValueError, match="k=5 of 4 heads"):
        profile.bottom(0, 5)


def test_a_profile_survives_its_file(tmp_path):
    profile = ARSProfile.from_scores(torch.rand(3, 8), torch.rand(5, 3, 8), model="m", n_pairs=5)
    profile.save(tmp_path / "p.safetensors")
    loaded = ARSProfile.load(tmp_path / "p.safetensors")
    for name in ("ranking", "scores", "per_pair"):
        assert torch.equal(getattr(loaded, name), getattr(profile, name))
    assert loaded.about == {"model": "m", "n_pairs": 5}


def test_files_that_are_no_profile(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file name that ends in \.safetensors"):
        ARSProfile.from_scores(torch.rand(2, 4)).save(tmp_path / "p.pt")
    with pytest.raises(ValueError, match="no profile at"):
        ARSProfile.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read"):
        ARSProfile.load(tmp_path / "junk.safetensors")
    save_file({"weight": torch.rand(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not a head profile"):
        ARSProfile.load(tmp_path / "other.safetensors")


def test_scores_must_be_finite():
    with pytest.raises(ValueError, match="some head scores are not finite"):
        ARSProfile.from_scores(torch.tensor([[float("nan"), 1.0]]))


def test_the_published_ranking():
    profile = ARSProfile.published("llava-1.5-7b")
    assert (profile.n_layers, profile.n_heads) == (32, 32)
    assert all(sorted(row) == list(range(32)) for row in profile.ranking.tolist())
    assert profile.top(0, 3) == [22, 24, 7]
    assert profile.bottom(0, 2) == [5, 17]
    assert profile.about["layers_enhanced_by_default"] == list(range(14, 32))
    with pytest.raises(ValueError, match="published ranking without scores"):
        _ = profile.scores
    with pytest.raises(ValueError, match="no published ranking for 'llava'"):
        ARSProfile.published("llava")
    json.dumps(profile.about)
