"""Which heads and layer are shown, that the maps are theirs, outlines, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from picture_questions import StopError, interrupt_after, item, questions
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import scenes
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study
from rvelens.studies.kit import rows
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study

STUDY = find_study("attention-maps")


def measured(model, profile, out, benchmark=None, **options):
    return run_study(
        STUDY, model, [benchmark or questions()], out, profile=profile, options=options
    )


def test_the_maps_are_those_of_the_ranked_heads(model, plain, profile, tmp_path):
    _, _, data = measured(model, profile, tmp_path, layer=2, n=2, question="q1")
    plain.set_attn_implementation("eager")
    inputs = model.prepare(IMAGES[1], QUESTIONS[1])
    is_image = inputs["input_ids"][0] == model.image_token_id
    with torch.no_grad():
        row = plain(**inputs, output_attentions=True).attentions[2][0, :, -1][:, is_image]
    order = sorted(range(8), key=lambda h: -float(profile.scores[2, h]))
    for group, heads in (("most", order[:2]), ("least", order[::-1][:2])):
        assert list(data["attention"][group]) == list(map(str, heads))
        for head in heads:
            got = data["attention"][group][str(head)]
            np.testing.assert_allclose(got, row[head].numpy(), atol=1e-5)
            score = float(profile.scores[2, head])
            assert data["scores"][str(head)] == pytest.approx(score, abs=1e-6)
    shares = [one["image"] for one in data["heads"]]
    assert shares[0] == pytest.approx(float(row[order[0]].sum()), abs=1e-5)
    assert {one["auc"] for one in data["heads"]} == {None}
    assert data["why"] == "as asked for"


def test_the_layer_is_the_most_sensitive_of_the_preset_ones(model, tmp_path):
    scores = torch.zeros(model.n_layers, model.n_heads)
    scores[0], scores[2] = 2.0, 1.0  # the first layer is none of the preset ones, which are 1-2
    _, _, data = measured(model, ARSProfile.from_scores(scores), tmp_path)
    assert data["layer"] == 2
    assert data["why"] == "the highest mean ARS among layers 1-2, RVE's preset"


def test_what_is_refused_before_the_work(model, profile, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "last_rows", None)
    with pytest.raises(ValueError, match=r"question 'q9' is not among the 5 of pictures: .* 'q0'"):
        measured(model, profile, tmp_path / "a", question="q9")
    with pytest.raises(ValueError, match="layer=3 of a model of 3 layers: expected 0 to 2, or -1"):
        measured(model, profile, tmp_path / "b", layer=3)
    with pytest.raises(ValueError, match="n=5 of 8 heads: expected 1 to 4"):
        measured(model, profile, tmp_path / "c", n=5)
    with pytest.raises(ValueError, match="layer=-1 with a ranking that has no scores"):
        measured(model, ARSProfile(profile.ranking), tmp_path / "d")
    with pytest.raises(ValueError, match="study 'attention-maps' without a head profile"):
        measured(model, None, tmp_path / "e")
    hf_model, processor = build("instructblip")
    blip = HookedLVLM.from_pretrained(hf_model, processor=processor)
    with pytest.raises(ValueError, match="the image tokens of instructblip have no position"):
        measured(blip, profile, tmp_path / "f")


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
def test_families_with_tiles_or_without_replay(family, profile, tmp_path):
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    setup, _, data = measured(model, profile, tmp_path, n=1)
    figure = STUDY.show(setup, [data]).figures["sensitive"]
    # The real picture at its real aspect: 48 x 22 pixels.
    height, width = figure.axes[0].images[0].get_size()
    assert width / height == pytest.approx(48 / 22, rel=0.01)


def test_a_ranking_without_scores_and_a_question_without_a_region(model, profile, tmp_path):
    setup, _, data = measured(model, ARSProfile(profile.ranking), tmp_path, layer=1, n=1)
    shown = STUDY.show(setup, [data])
    assert data["scores"] is None
    assert shown.tables[""].columns == ("head", "sensitivity", "ARS", "attention to image")
    assert (
        shown.sentences[1] == "pictures does not say where one must look, so nothing is outlined."
    )
    assert not boxes(shown.figures["sensitive"])


def boxes(figure):
    found = [patch for axes in figure.axes if axes.images for patch in axes.patches]
    return [patch for patch in found if isinstance(patch, Rectangle)]


def test_the_true_region_is_outlined_where_it_is(model, profile, tmp_path):
    """A box over the upper right quarter of a picture of 48 x 22 pixels."""
    asked = item(0, 0, regions=lambda: {"verb": ((24.0, 0.0, 48.0, 11.0),)})
    setup, _, data = measured(model, profile, tmp_path, questions(asked), layer=1, n=2)
    shown = STUDY.show(setup, [data])
    (box,) = boxes(shown.figures["insensitive"])
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (0.5, 0.5, 0.5, 0.5)
    assert len(boxes(shown.figures[""])) == 5  # the picture, two heads, two heads
    assert shown.tables[""].columns[-2:] == ("region AUC", "mass / area")


def test_it_goes_on_after_an_interruption(model, profile, tmp_path):
    _, _, whole = measured(model, profile, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, rows, "last_rows", 0)
        with pytest.raises(StopError):
            measured(model, profile, tmp_path / "cut")
    _, _, again = measured(model, profile, tmp_path / "cut")
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, rows, "last_rows", 0)
        _, _, third = measured(model, profile, tmp_path / "cut")
    assert json.dumps(again) == json.dumps(whole) == json.dumps(third)
    assert not made


def test_end_to_end(tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    profile = ARSProfile.load(TINY / "profile.safetensors")
    setup, made, data = measured(
        model, profile, tmp_path, scenes.load_scenes(n=2), question="test-1"
    )
    assert data["question"]["id"] == "test-1"
    assert all(0 <= one["auc"] <= 1 for one in data["heads"])
    files = write_study(tmp_path, STUDY, [made], [data], STUDY.show(setup, [data]))
    names = {file.name for file in files}
    assert {"attention-maps.png", "attention-maps-sensitive.png"} <= names
