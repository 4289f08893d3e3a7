"""Models of the explorer: loaded once, refused in words, with a profile that may be measured."""

from __future__ import annotations

import pytest
import torch

from rvelens import ARSProfile
from rvelens.app import models as models_module
from rvelens.app.models import Choice, Models, save_profile
from rvelens.app.shared import scene_pairs
from rvelens.scores import score_heads


@pytest.fixture(scope="module")
def models():
    return Models()


def test_a_model_is_loaded_once(models, monkeypatch):
    first = models.get("rvelens/tiny")
    monkeypatch.setattr(models_module, "load_model", lambda *a, **k: pytest.fail("loaded again"))
    assert models.get(" rvelens/tiny ").model is first.model
    assert first.describe().startswith(
        "rvelens/tiny: llava, 6 layers × 12 heads, float32 on cpu; its"
    )


def test_models_that_cannot_be_loaded(models, tmp_path):
    with pytest.raises(ValueError, match="no model is given"):
        models.get(" ")
    with pytest.raises(ValueError, match=r"the model '.*' cannot be loaded"):
        models.get(str(tmp_path))
    assert models.get("rvelens/tiny").profile is not None


def test_a_profile_belongs_to_the_window_that_chose_it(tmp_path):
    models = Models()
    ARSProfile.from_scores(torch.rand(6, 12)).save(tmp_path / "mine.safetensors")
    ARSProfile.from_scores(torch.rand(3, 12)).save(tmp_path / "other.safetensors")
    first = models.choose("rvelens/tiny")
    named = models.choose("rvelens/tiny", str(tmp_path / "mine.safetensors"))
    with pytest.raises(ValueError, match="a profile of 3 layers x 12 heads"):
        models.choose("rvelens/tiny", str(tmp_path / "other.safetensors"))
    pairs = scene_pairs()[:2]
    measured = models.measure(first, pairs)
    model = models.loaded(first).model
    assert torch.equal(measured.profile.scores, score_heads(model, pairs).scores)
    assert measured.source == "head profile measured on 2 pairs, not saved"
    # Neither changed what other windows work with, nor what a new one starts with.
    digests = {c.profile.digest() for c in (first, named, measured)}
    assert len(digests) == 3
    for choice in (first, models.choose("rvelens/tiny")):
        assert models.loaded(choice).profile.digest() == first.profile.digest()
        assert models.loaded(choice).describe().endswith("its shipped head profile")
    assert models.loaded(measured).describe().endswith("measured on 2 pairs, not saved")


def test_a_profile_is_saved_to_a_new_file_alone(models, tmp_path):
    start = models.choose("rvelens/tiny")
    target = tmp_path / "kept.safetensors"
    saved = save_profile(start, f" {target} ")
    assert saved.source == f"head profile {target}"
    assert ARSProfile.load(target).digest() == start.profile.digest()
    assert models.choose("rvelens/tiny", str(target)).profile.digest() == start.profile.digest()
    for path, says in (
        (str(target), "exists already: expected a new file"),
        (" ", "no file is given for the head profile: expected"),
        (str(tmp_path / "kept.pt"), "ends in .safetensors"),
        (str(tmp_path / "none" / "kept.safetensors"), "expected a file in a folder that exists"),
    ):
        with pytest.raises(ValueError, match=says):
            save_profile(start, path)
    with pytest.raises(ValueError, match="there is no head profile"):
        save_profile(Choice("rvelens/tiny", None, ""), str(tmp_path / "new.safetensors"))
