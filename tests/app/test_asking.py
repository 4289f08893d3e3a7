"""Asking without and with a method: answers, probabilities, masks and attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rvelens.app.asking import MOST_PIXELS, Setting, ask, given, read_picture, settings_of
from rvelens.app.models import Loaded, Models
from rvelens.app.shared import scenes
from rvelens.app.tab_ask import ALL_LAYERS, views
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.answering import answer
from rvelens.hooks import ars_caching_hooks
from rvelens.interventions.methods import METHODS, make_method


@pytest.fixture(scope="module")
def loaded():
    return Models().get("rvelens/tiny")


@pytest.mark.parametrize("method", list(METHODS))
def test_answers_are_those_of_the_evaluation(loaded, method):
    scene = scenes()[2]
    found = ask(loaded, scene.image, scene.text, method, {})
    for name, said in (("vanilla", found.plain), (method, found.steered)):
        made = make_method(name, loaded.model, loaded.profile)
        ((text, margin),) = answer(loaded.model, made, [scene.image], [scene.text], ["picture"])
        assert said.text == text
        assert margin == pytest.approx(np.log(said.yes / said.no), abs=1e-4)
    assert 0 < found.plain.yes + found.plain.no <= 1 + 1e-6


def test_attention_before_and_after_is_of_the_last_token(loaded):
    scene, model = scenes()[2], loaded.model
    found = ask(loaded, scene.image, scene.text, "rve", {"layers": "4", "beta": 2.0})
    cache = {}
    with torch.no_grad(), model.hooks(ars_caching_hooks(range(model.n_layers), cache)):
        model(**model.prepare(scene.image, scene.text))
    plain = torch.stack([cache[n][0] for n in range(model.n_layers)])
    assert torch.allclose(found.before, plain, atol=1e-6)
    changed = (found.after - found.before).abs().amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 2  # layer 5 sees what layer 4 made
    assert list(found.masks) == ["4"]
    enhanced, removed = (set(found.masks["4"][name]) for name in ("enhanced", "removed"))
    assert enhanced
    assert not enhanced & removed


def test_methods_without_masks_have_none(loaded):
    scene = scenes()[0]
    assert ask(loaded, scene.image, scene.text, "vaf", {}).masks == {}


def test_mistakes_are_told_in_the_librarys_own_words(loaded):
    scene = scenes()[0]
    with pytest.raises(ValueError, match=r"a question is '  ': expected a sentence"):
        ask(loaded, scene.image, "  ", "rve", {})
    with pytest.raises(ValueError, match=r"layers '3-99': expected layers from 0 to 5"):
        ask(loaded, scene.image, scene.text, "rve", {"layers": "3-99"})
    bare = Loaded(loaded.model, None, "")
    with pytest.raises(ValueError, match=r"method 'rve' without a head profile"):
        ask(bare, scene.image, scene.text, "rve", {})


def test_a_forms_values_become_parameters():
    settings = settings_of("rve")
    assert [s.name for s in settings][:3] == ["layers", "k", "alpha"]
    assert [s.kind for s in settings] == [
        "text", "whole", "real", "real", "choice", "switch", "real", "text",
    ]  # fmt: skip
    values = ["2-4", "3", None, 1, "all", False, 0.5, "decode"]
    assert given(settings, values) == {
        "layers": "2-4", "k": 3, "beta": 1.0, "scope": "all", "denoise": False, "max_entropy": 0.5,
        "steps": "decode",
    }  # fmt: skip
    assert given([Setting("layers", "text", "preset")], ["  "]) == {}
    assert settings_of("vanilla") == []
    with pytest.raises(ValueError, match=r"k='2.5': expected a whole number"):
        given(settings, ["", "2.5", *values[2:]])


@pytest.mark.parametrize("method", list(METHODS))
def test_default_values_of_every_form_are_accepted(loaded, method):
    settings = settings_of(method)
    made = make_method(
        method, loaded.model, loaded.profile, **given(settings, [s.default for s in settings])
    )
    assert made.parameters == make_method(method, loaded.model, loaded.profile).parameters


def test_pictures_are_read_or_refused(tmp_path):
    with pytest.raises(ValueError, match="no image is given"):
        read_picture(None)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text.png cannot be read as an image"):
        read_picture(tmp_path / "text.png")
    side = int(MOST_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"40.0 megapixels: expected at most 40; make it smaller"):
        read_picture(tmp_path / "large.png")
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    assert read_picture(tmp_path / "turned.jpg").size == (2, 4)


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200)])
def test_pictures_of_every_kind_are_asked_about(loaded, size, tmp_path):
    deep = np.full((size[1], size[0]), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    frames = [Image.new("P", size, k) for k in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", size, (9, 9, 9, 0)).save(tmp_path / "clear.png")
    for name in ("deep.png", "moving.gif", "clear.png"):
        shown = read_picture(tmp_path / name)
        assert shown.mode == "RGB"
        found = ask(loaded, shown, scenes()[0].text, "rve", {}, max_new_tokens=1)
        assert views(found, ALL_LAYERS).count("<img") == 6
    assert read_picture(tmp_path / "deep.png").getpixel((0, 0)) == (156, 156, 156)


def test_scenes_are_those_of_the_benchmark():
    for scene, item in zip(scenes(), load_benchmark("action-scenes", n=8).items, strict=True):
        assert scene.text == item.text
        assert scene.answer == item.truth
