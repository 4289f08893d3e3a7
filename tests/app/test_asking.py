"""Asking without and with a method: answers, probabilities, masks and attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rvelens.app.asking import MOST_PIXELS, ask, read_picture
from rvelens.app.enhanced import enhanced
from rvelens.app.fields import wanted_of
from rvelens.app.models import Loaded, Models
from rvelens.app.settings import CHOICES, REGION, Setting, read_form, settings_of
from rvelens.app.shared import scenes
from rvelens.app.tab_ask import box_text
from rvelens.app.viewer import Focus, viewer
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.answering import answer
from rvelens.hooks import ars_caching_hooks
from rvelens.interventions.methods import METHODS, make_method


@pytest.fixture(scope="module")
def loaded():
    return Models().get("rvelens/tiny")


@pytest.mark.parametrize("method", list(METHODS)[1:])
def test_answers_are_those_of_the_evaluation(loaded, method):
    scene = scenes()[2]
    found = ask(loaded, scene.image, scene.text, {method: {}})
    assert [column.name for column in found.columns] == ["plain", method]
    for name, column in zip(("vanilla", method), found.columns, strict=True):
        made = make_method(name, loaded.model, loaded.profile)
        ((text, margin),) = answer(loaded.model, made, [scene.image], [scene.text], ["picture"])
        assert column.answer.text == column.traced.text == text
        assert margin == pytest.approx(np.log(column.answer.yes / column.answer.no), abs=1e-4)
    assert 0 < found.columns[0].answer.yes + found.columns[0].answer.no <= 1 + 1e-6


def test_attention_of_the_first_token_is_of_the_prompts_last_row(loaded):
    scene, model = scenes()[2], loaded.model
    found = ask(loaded, scene.image, scene.text, {"rve": {"layers": "4", "beta": 2.0}})
    before, after = (column.traced.attention[0] for column in found.columns)
    cache = {}
    with torch.no_grad(), model.hooks(ars_caching_hooks(range(model.n_layers), cache)):
        model(**model.prepare(scene.image, scene.text))
    plain = torch.stack([cache[n][0] for n in range(model.n_layers)])
    assert torch.allclose(before, plain, atol=1e-6)
    changed = (after - before).abs().amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 2  # layer 5 sees what layer 4 made
    masks = found.columns[1].masks
    assert list(masks) == ["4"]
    marked, removed = (set(masks["4"][name]) for name in ("enhanced", "removed"))
    assert marked
    assert not marked & removed


def test_two_methods_stand_beside_the_plain_model(loaded):
    scene = scenes()[0]
    found = ask(loaded, scene.image, scene.text, {"vaf": {}, "rve": {}})
    assert [column.name for column in found.columns] == ["plain", "vaf", "rve"]
    assert [bool(column.masks) for column in found.columns] == [False, False, True]
    with pytest.raises(ValueError, match=r"both methods are rve: expected two different ones"):
        wanted_of("rve", "rve", [])


def test_a_region_raises_the_scores_of_its_tokens(loaded):
    """A literal reference: the tokens whose patch of 12 pixels has its middle in the box."""
    scene = scenes()[2]
    wanted = {REGION: {"box": "48,72,72,96", "layers": "3", "beta": 2.0}}
    found = ask(loaded, scene.image, scene.text, wanted)
    cache = {}
    with (
        torch.no_grad(),
        loaded.model.hooks(
            [("blocks.3.attn.hook_attn_scores", lambda x, hook: cache.update(x=x.clone()))]
        ),
    ):
        loaded.model(**loaded.model.prepare(scene.image, scene.text))
    ((_, tokens),) = [(0, loaded.model.token_map(loaded.model.prepare(scene.image, scene.text)))]
    scores = cache["x"][0, :, -1]
    keys = tokens.image_keys(scores.shape[-1], scores.device)[0].nonzero().flatten()
    for row in (6, 7):
        for column in (4, 5):
            key = keys[8 * row + column]
            scores[:, key] += 2.0 * scores[:, key].abs()
    steered = found.columns[1].traced.attention[0, 3]
    assert torch.allclose(steered, scores.softmax(-1)[:, keys], atol=1e-5)
    assert found.columns[1].method.parameters["tokens"] == 4


def test_a_region_without_a_box_is_refused(loaded):
    scene = scenes()[0]
    with pytest.raises(ValueError, match=r"no box is given for the region: expected x0,y0,x1,y1"):
        ask(loaded, scene.image, scene.text, {REGION: {}})
    with pytest.raises(ValueError, match=r"region '5,5,2,9' in an image of 96 x 96 pixels"):
        ask(loaded, scene.image, scene.text, {REGION: {"box": "5,5,2,9"}})


def test_a_drawn_box_is_whole_pixels_inside_the_picture():
    assert box_text([0.25, 0.5, 0.5, 1.0], (96, 40)) == "24,20,48,40"
    assert box_text([0.999, 0.0, 1.0, 0.001], (10, 10)) == "9,0,10,1"


def test_mistakes_are_told_in_the_librarys_own_words(loaded):
    scene = scenes()[0]
    with pytest.raises(ValueError, match=r"a question is '': expected a sentence"):
        ask(loaded, scene.image, "  ", {"rve": {}})
    with pytest.raises(ValueError, match=r"layers '3-99': expected layers from 0 to 5"):
        ask(loaded, scene.image, scene.text, {"rve": {"layers": "3-99"}})
    bare = Loaded(loaded.model, None, "")
    with pytest.raises(ValueError, match=r"method 'rve' without a head profile"):
        ask(bare, scene.image, scene.text, {"rve": {}})


def test_a_forms_values_become_parameters():
    settings = settings_of("rve")
    assert [s.name for s in settings][:3] == ["layers", "k", "alpha"]
    assert [s.kind for s in settings] == [
        "text", "whole", "real", "real", "choice", "switch", "real", "text",
    ]  # fmt: skip
    values = ["2-4", "3", None, 1, "all", False, 0.5, "decode"]
    assert read_form(settings, values) == {
        "layers": "2-4", "k": 3, "beta": 1.0, "scope": "all", "denoise": False, "max_entropy": 0.5,
        "steps": "decode",
    }  # fmt: skip
    assert read_form([Setting("layers", "text", "preset")], ["  "]) == {}
    assert settings_of("vanilla") == []
    assert [s.name for s in settings_of(REGION)] == ["box", "layers", "beta"]
    assert [len(settings_of(name)) > 0 for name in CHOICES] == [True] * len(CHOICES)
    with pytest.raises(ValueError, match=r"k='2.5': expected a whole number"):
        read_form(settings, ["", "2.5", *values[2:]])


@pytest.mark.parametrize("method", list(METHODS))
def test_default_values_of_every_form_are_accepted(loaded, method):
    settings = settings_of(method)
    made = make_method(
        method, loaded.model, loaded.profile, **read_form(settings, [s.default for s in settings])
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
        found = ask(loaded, shown, scenes()[0].text, {"rve": {}}, max_new_tokens=1)
        assert viewer(found, Focus(), "").count("<img") == 2
        assert enhanced(found, Focus()).count("<img") == 3
    assert read_picture(tmp_path / "deep.png").getpixel((0, 0)) == (156, 156, 156)


def test_scenes_are_those_of_the_benchmark():
    for scene, item in zip(scenes(), load_benchmark("action-scenes", n=8).items, strict=True):
        assert scene.text == item.text
        assert scene.answer == item.truth
