"""Models of the explorer: loaded once, refused in words, with a profile that may be measured."""

from __future__ import annotations

import pytest
import torch

from rvelens import ARSProfile
from rvelens.app import models as models_module
from rvelens.app.models import Models
from rvelens.app.shared import scene_pairs
from rvelens.scores import score_heads


@pytest.fixture(scope="module")
def models():
    return Models()


def test_a_model_is_loaded_once(models, monkeypatch):
    first = models.get("rvelens/tiny")
    monkeypatch.setattr(models_module, "load_model", lambda *a, **k: pytest.fail("loaded again"))
    assert models.get(" rvelens/tiny ") is first
    assert first.says().startswith("rvelens/tiny: llava, 6 layers × 12 heads, float32 on cpu; its")


def test_models_that_cannot_be_loaded(models, tmp_path):
    with pytest.raises(ValueError, match="no model is named"):
        models.get(" ")
    with pytest.raises(ValueError, match=r"the model '.*' cannot be loaded"):
        models.get(str(tmp_path))
    assert models.get("rvelens/tiny").profile is not None


def test_a_profile_is_named_or_measured(tmp_path):
    models = Models()
    ARSProfile.from_scores(torch.rand(6, 12)).save(tmp_path / "mine.safetensors")
    ARSProfile.from_scores(torch.rand(3, 12)).save(tmp_path / "other.safetensors")
    named = models.profiled("rvelens/tiny", str(tmp_path / "mine.safetensors"))
    assert models.get("rvelens/tiny") is named
    with pytest.raises(ValueError, match="a profile of 3 layers x 12 heads"):
        models.profiled("rvelens/tiny", str(tmp_path / "other.safetensors"))
    assert models.get("rvelens/tiny") is named
    pairs = scene_pairs()[:2]
    measured = models.measured("rvelens/tiny", pairs)
    assert torch.equal(measured.profile.scores, score_heads(named.model, pairs).scores)
    assert measured.source == "head profile of 2 pairs"
