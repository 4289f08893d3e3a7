"""Answers as HTML: words, pictures of tokens, truth, and what a view leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rvelens.app.asking import ask
from rvelens.app.models import Models
from rvelens.app.shared import scenes
from rvelens.app.truth import truth_of
from rvelens.app.viewer import (
    CHANGED,
    Focus,
    change_of,
    checked_view,
    map_of,
    n_steps,
    tops,
    viewer,
)


@pytest.fixture(scope="module")
def asked():
    scene = scenes()[2]  # plain says yes, which is right, and rve says no
    wanted = {"rve": {}, "region": {"box": "48,60,80,90"}}
    return ask(Models().get("rvelens/tiny"), scene.image, scene.text, wanted)


def test_each_word_has_a_picture_and_one_is_on_show(asked):
    html = viewer(asked, Focus(step=1), "")
    assert html.count("<figure") == html.count("<img") == 3 * 2
    assert html.count('<figure data-step="1" class="on"') == 3
    assert html.count('<button type="button" data-step="0" tabindex="0"') == 3
    assert 'class="on rv-end"' in html  # the token that ends the answer
    assert "2 of 2" in html


def test_the_truth_of_a_drawn_scene_is_shown(asked):
    html = viewer(asked, Focus(), "")
    assert "the truth: yes" in html
    assert html.count(">right<") == 2
    assert html.count(">wrong<") == 1
    assert html.count('<i class="rv-true"') == html.count('<i class="rv-region"') == 6
    x0, y0, x1, y1 = scenes()[2].regions["verb"][0]
    assert f'<i class="rv-true" style="left:{x0 / 0.96:.2f}%;top:{y0 / 0.96:.2f}%;' in html
    assert f'width:{(x1 - x0) / 0.96:.2f}%;height:{(y1 - y0) / 0.96:.2f}%"' in html


def test_truth_belongs_to_a_scenes_pixels_and_question():
    scene = scenes()[3]
    assert truth_of(scene.image, scene.text).answer is False
    assert truth_of(scene.image, "What is there?").answer is None
    assert truth_of(scene.image, "What is there?").scene == 3
    other = scene.image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert truth_of(other, scene.text) is None
    assert truth_of(Image.new("RGB", (5, 5)), scene.text) is None


def test_a_layer_is_the_mean_over_its_heads(asked):
    column = asked.columns[1]
    literal = column.traced.attention[0, 4].mean(dim=0)
    assert np.allclose(map_of(column, 0, 4), literal, atol=1e-6)
    assert "mean over the heads of layer 4" in viewer(asked, Focus(layer=4), "")
    top, _ = tops(asked, Focus(layer=4))
    largest = max(float(c.traced.attention[:, 4].mean(dim=1).max()) for c in asked.columns)
    assert top == pytest.approx(largest, abs=1e-6)


def test_a_change_is_shown_only_behind_the_same_tokens(asked):
    plain, rve, _ = asked.columns
    literal = (rve.traced.attention[0] - plain.traced.attention[0]).mean(dim=(0, 1))
    assert np.allclose(change_of(rve, plain, 0, None), literal, atol=1e-6)
    assert change_of(rve, plain, 1, None) is None  # one said yes before it, the other no
    html = viewer(asked, Focus(show=CHANGED), "")
    assert html.count("the answers differ before this token</figcaption>") == 1
    assert "change against plain" in html


def test_shorter_answers_say_that_they_have_ended(asked):
    rve = asked.columns[1]
    short = replace(
        rve.traced, ids=rve.traced.ids[:1], pieces=rve.traced.pieces[:1],
        log_probs=rve.traced.log_probs[:1], attention=rve.traced.attention[:1],
    )  # fmt: skip
    columns = (asked.columns[0], replace(rve, traced=short))
    html = viewer(replace(asked, columns=columns), Focus(step=1), "")
    assert "this answer has ended" in html


def test_views_beyond_the_answers_become_the_nearest(asked):
    assert n_steps(asked) == 2
    assert checked_view(Focus(99, 99, "colours"), asked) == Focus(5, 1, "attention")
    assert checked_view(Focus(None, -3), asked) == Focus(None, 0)


def test_families_without_a_grid_have_words_and_no_pictures(asked):
    html = viewer(replace(asked, trace=replace(asked.trace, grid=None)), Focus(), "")
    assert "<img" not in html
    assert "Draw a region" not in html
    assert "have no place in the picture" in html
    assert 'data-step="0"' in html


def test_what_people_and_models_say_is_escaped(asked):
    plain = asked.columns[0]
    traced = replace(
        plain.traced, pieces=("<b>${1}", "{{x}}"), ids=torch.tensor([1, 2]), text="<b>${1}{{x}}"
    )
    html = viewer(
        replace(asked, question="<script>${1}", columns=(replace(plain, traced=traced),)),
        Focus(), 'a="b"',
    )  # fmt: skip
    assert "<script>" not in html
    assert "<b>" not in html.replace('<b class="', "").replace('<b style="', "")
    assert "${" not in html
    assert "{{" not in html
    assert 'data-link="a=&quot;b&quot;"' in html
