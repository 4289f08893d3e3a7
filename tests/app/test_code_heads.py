"""The tab Heads as Python: the program runs, and gives the map, the attention and the answers shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from executing import executed

from rvelens import ARSProfile
from rvelens.app.heads import ask_without, see
from rvelens.app.heads_code import PAIR, PROFILE, HeadsView, map_figure, python_of_heads
from rvelens.app.heads_link import UPLOAD
from rvelens.app.heads_tools import heads_tools_html
from rvelens.app.shared import scene_pairs

MASKED = {2: list(range(12)), 3: [1, 5], 4: list(range(6))}


def view_of(number, **more):
    pair = scene_pairs()[number]
    return HeadsView(number, pair.question, pair.contrastive, **more)


@pytest.mark.parametrize("source", [PROFILE, PAIR])
def test_the_program_gives_what_the_tab_shows(models, source, tmp_path, monkeypatch, capsys):
    choice, pair = models.choose("rvelens/tiny"), scene_pairs()[1]
    loaded, texts = models.loaded(choice), (pair.question, pair.contrastive)
    view = view_of(1, source=source, shown={3: [5]}, masked=MASKED)
    names = executed(python_of_heads(view, models, choice), tmp_path, monkeypatch)
    recorded = see(loaded, pair)
    if source == PROFILE:
        assert torch.equal(names["profile"].scores, choice.profile.scores)
    else:
        assert torch.allclose(names["pair_profile"].scores, recorded.scores, atol=1e-4)
    for values, seen in zip(names["attention"], recorded.attention[:, 3, 5], strict=True):
        assert torch.allclose(values, seen, atol=1e-5)
    check_answers(names["answers"], ask_without(loaded, pair.image, texts, MASKED))
    assert (tmp_path / "heads.pdf").read_bytes().startswith(b"%PDF")
    assert "layer 3, head 5: " + pair.question in capsys.readouterr().out


def check_answers(answers, shown):
    with_all, without = answers.values()
    assert next(iter(answers)) == "all heads"
    for n, (before, after) in enumerate(shown):
        for (text, margin), answer in zip((with_all[n], without[n]), (before, after), strict=True):
            assert text == answer.text
            assert margin == pytest.approx(np.log(answer.yes / answer.no), abs=1e-4)


def test_a_program_computes_only_what_is_on_show(models, tmp_path, monkeypatch, capsys):
    bare = replace(models.choose("rvelens/tiny"), profile=None, code="")
    code = python_of_heads(view_of(0), models, bare)
    names = executed(code, tmp_path, monkeypatch)
    assert names["texts"] == [scene_pairs()[0].question, scene_pairs()[0].contrastive]
    assert not {"attention", "answers", "profile"} & names.keys()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_an_uploaded_picture_is_read_from_a_file(models, tmp_path, monkeypatch):
    scene_pairs()[0].image.rotate(90).save(tmp_path / "picture.png")
    view = replace(view_of(0, masked={3: [5]}), pair=None, question='Is "it" a {cat}?')
    names = executed(
        python_of_heads(view, models, models.choose("rvelens/tiny")), tmp_path, monkeypatch
    )
    assert names["texts"][0] == 'Is "it" a {cat}?'
    assert len(names["answers"]["without 3.5"]) == 2


def test_the_figure_is_of_the_map_on_show(models):
    choice = models.choose("rvelens/tiny")
    recorded = see(models.loaded(choice), scene_pairs()[1])
    for source, scores in ((PROFILE, choice.profile.scores), (PAIR, recorded.scores)):
        (image,) = map_figure(choice, recorded, source).axes[0].images
        np.testing.assert_allclose(image.get_array(), scores, atol=1e-6)
    ranking = replace(choice, profile=ARSProfile(choice.profile.ranking))
    for without, source in (
        (choice, PAIR),
        (replace(choice, profile=None), PROFILE),
        (ranking, PROFILE),
    ):
        with pytest.raises(
            ValueError, match=r"no head map is shown: expected .*; measure a profile"
        ):
            map_figure(without, None, source)


def test_the_buttons_are_those_that_work(models):
    choice = models.choose("rvelens/tiny")
    texts = ("What?", "Which?", "3.5", "")
    html = heads_tools_html(models, choice, PROFILE, UPLOAD, *texts)
    assert html.count("<button") == 3
    assert "picture.png" in html
    bare = replace(choice, profile=None)
    assert heads_tools_html(models, bare, PROFILE, "2", *texts).count("<button") == 1
    wrong = heads_tools_html(models, choice, PROFILE, "2", "What?", "Which?", "3.", "")
    assert "<button" not in wrong
    assert "expected layer.head" in wrong
