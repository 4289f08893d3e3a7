"""Equation 3, profiles and their files; agreement with eager attentions is in tests/families."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from family_cases import hooked
from hypothesis import given
from hypothesis import strategies as st
from reference import ars as literal_ars
from reference import ars_of_attentions
from safetensors.torch import save_file
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, ContrastivePair, HookedLVLM, score_heads
from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.evaluate.intervention import Intervention
from rvelens.heads.hub import TINY
from rvelens.hooks import head_mask_hooks
from rvelens.model.prefix import REPLAYS, can_share
from rvelens.scores.maps import ars

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


# Two pairs share an image object; both texts of a pair differ in length, and so do the questions.
PAIRS = [
    ContrastivePair(IMAGES[0], QUESTIONS[0], "does a man ride a surfboard ?"),
    ContrastivePair(IMAGES[1], QUESTIONS[1], "is there contact near the big red ball ?"),
    ContrastivePair(IMAGES[0], QUESTIONS[2], "does a child eat a big red ball in this image ?"),
]
TEXTS = [pair.question for pair in PAIRS] + [pair.contrastive for pair in PAIRS]
BEFORE = "you are helpful assistant . {question} {image} answer"


def nothing_shared(monkeypatch):
    monkeypatch.setattr("rvelens.scores.inputs.can_share", lambda model, prompt: False)


def descends(scores, ranking):
    """The ranking is that of the scores; heads within rounding of one another may change places."""
    assert float(scores.gather(1, ranking).diff(dim=1).max()) <= 1e-5


def images_seen(model):
    """Images that the vision tower is given, one entry a forward."""
    seen = []
    tower = model.hf_model.model.vision_tower
    tower.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    return seen


@pytest.mark.parametrize("name", [*REPLAYS, "smolvlm"])
def test_a_shared_prefix_changes_no_score(name, monkeypatch):
    model = hooked(name)
    assert can_share(model, "chat")
    shared = score_heads(model, PAIRS, any_text=True)
    nothing_shared(monkeypatch)
    whole = score_heads(model, PAIRS, any_text=True)
    torch.testing.assert_close(shared.per_pair, whole.per_pair, rtol=0, atol=1e-5)
    inputs = model.prepare([pair.image for pair in PAIRS] * 2, TEXTS)
    eager, _ = build(name)
    eager.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    tokens = model.token_map(inputs)
    image = [torch.nonzero(row).flatten().tolist() for row in tokens.image]
    expected = ars_of_attentions(attentions, image, tokens.last.tolist())
    torch.testing.assert_close(shared.scores, expected, rtol=0, atol=1e-5)
    descends(expected, shared.ranking)


@pytest.mark.slow
def test_the_shipped_profile_is_measured_again():
    """Its six least sensitive heads of layer 0 score below 5e-7: these alone may change places."""
    shipped = ARSProfile.load("rvelens/tiny")
    model = HookedLVLM.from_pretrained("rvelens/tiny", dtype=torch.float32)
    profile = score_heads(model, contrastive_pairs("validation", shipped.about["n_pairs"], 55))
    torch.testing.assert_close(profile.per_pair, shipped.per_pair, rtol=0, atol=1e-5)
    descends(profile.scores, shipped.ranking)
    descends(shipped.scores, profile.ranking)
    assert torch.equal(profile.ranking[1:], shipped.ranking[1:])
    assert torch.equal(profile.ranking[0, :6], shipped.ranking[0, :6])


def test_the_embedded_models_name_is_no_repository(monkeypatch):
    monkeypatch.setattr(
        "rvelens.heads.hub.huggingface_hub.snapshot_download", lambda *a, **k: 1 / 0
    )
    assert ARSProfile.load(Path("rvelens/tiny")).digest() == ARSProfile.load(TINY).digest()
    with pytest.raises(ValueError, match="no intervention at rvelens/tiny: expected a folder"):
        Intervention.load("rvelens/tiny")


@pytest.mark.parametrize(("prompt", "images"), [("chat", 2), (BEFORE, 6)])
def test_each_image_is_seen_once_where_the_question_follows_it(model, prompt, images):
    seen = images_seen(model)
    score_heads(model, PAIRS, any_text=True, prompt=prompt)
    assert seen == [images]


def test_hooks_that_are_on_see_whole_prompts(model, monkeypatch):
    unhooked, seen = score_heads(model, PAIRS, any_text=True), images_seen(model)
    with model.hooks(head_mask_hooks({0: [0, 1, 2, 3]})):  # at every position of the prompt
        masked = score_heads(model, PAIRS, any_text=True)
        assert seen == [6]
        nothing_shared(monkeypatch)
        assert torch.equal(score_heads(model, PAIRS, any_text=True).per_pair, masked.per_pair)
    assert not torch.allclose(masked.scores, unhooked.scores, atol=1e-3)


def test_pairs_without_a_change_are_refused(model):
    with pytest.raises(ValueError, match="pair 'x': both texts are 'A b'"):
        ContrastivePair(IMAGES[0], "A b", "A b ", "x")
    with pytest.raises(ValueError, match="no contrastive pairs"):
        score_heads(model, [])


def test_texts_that_differ_in_more_than_a_word_are_refused_unless_any_text_is_wanted(model):
    with pytest.raises(ValueError, match="expected texts that differ in one word"):
        score_heads(model, PAIRS)
    one_word = ContrastivePair(IMAGES[0], QUESTIONS[2], QUESTIONS[2].replace("kick", "eat"))
    assert score_heads(model, [one_word]).about["n_pairs"] == 1
    assert score_heads(model, PAIRS, any_text=True).about["n_pairs"] == 3


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
