"""The page as Python and as a manifest: the code runs, and gives what is on the page."""

from __future__ import annotations

import json

import pytest
import torch
from executing import executed

from rvelens.app.asking import ask
from rvelens.app.code import manifest_of, python_of
from rvelens.app.models import Models, save_profile
from rvelens.app.shared import scenes
from rvelens.app.viewer import Focus
from rvelens.benchmarks.action_scenes import contrastive_pairs

WANTED = {"rve": {"layers": "2-4", "k": 3}, "region": {"box": "10,20,50,60", "beta": 2.0}}


@pytest.fixture(scope="module")
def models():
    return Models()


def check_same(trace, asked):
    assert [a.name for a in trace.answers] == [c.name for c in asked.columns]
    for answer, column in zip(trace.answers, asked.columns, strict=True):
        assert answer.text == column.traced.text
        assert torch.equal(answer.ids, column.traced.ids)
        assert torch.equal(answer.attention, column.traced.attention)
        assert torch.equal(answer.log_probs, column.traced.log_probs)


@pytest.mark.parametrize("wanted", [WANTED, {"vcd": {}, "vaf": {}}, {"icd": {}, "pai": {}}, {}])
def test_the_code_gives_what_is_on_the_page(models, wanted, tmp_path, monkeypatch, capsys):
    scene, choice = scenes()[2], models.choose("rvelens/tiny")
    asked = ask(models.loaded(choice), scene.image, scene.text, wanted)
    code = python_of(asked, Focus(layer=3), models, choice)
    names = executed(code, tmp_path, monkeypatch)
    check_same(names["trace"], asked)
    assert (tmp_path / "answers.pdf").read_bytes().startswith(b"%PDF")
    assert "plain Yes" in capsys.readouterr().out
    assert "layers=[3]" in code


def test_the_code_of_an_upload_names_a_file(models, tmp_path, monkeypatch, capsys):
    picture, choice = scenes()[0].image.rotate(90), models.choose("rvelens/tiny")
    picture.save(tmp_path / "picture.png")
    asked = ask(models.loaded(choice), picture, 'Is "it" red?', {"vaf": {}})
    code = python_of(asked, Focus(), models, choice)
    check_same(executed(code, tmp_path, monkeypatch)["trace"], asked)
    assert "'picture.png')  # the picture that you uploaded" in code
    capsys.readouterr()


def test_profiles_that_were_measured_are_measured_again(models, tmp_path, monkeypatch, capsys):
    first, code = models.choose("rvelens/tiny"), 'contrastive_pairs("validation", 2)'
    measured = models.measure(first, contrastive_pairs("validation", 2), code)
    asked = ask(models.loaded(measured), scenes()[2].image, scenes()[2].text, {"rve": {}})
    program = python_of(asked, Focus(), models, measured)
    check_same(executed(program, tmp_path, monkeypatch)["trace"], asked)
    assert f"profile = score_heads(model, {code})" in program
    saved = save_profile(measured, str(tmp_path / "own.safetensors"))
    assert "ARSProfile.load(" in python_of(asked, Focus(), models, saved)
    capsys.readouterr()


def test_the_manifest_names_what_the_answers_depend_on(models):
    scene, choice = scenes()[2], models.choose("rvelens/tiny")
    asked = ask(models.loaded(choice), scene.image, scene.text, WANTED)
    stored = json.loads(manifest_of(asked, models, choice))
    assert stored["model"]["name"] == "rvelens/tiny"
    assert len(stored["model"]["weights"]) == 64
    assert stored["profile"] == choice.profile.digest()
    assert stored["image"]["scene"] == "test 2"
    assert stored["question"] == scene.text
    assert stored["methods"]["region"]["parameters"]["region"] == [10, 20, 50, 60]
    assert [a["text"] for a in stored["answers"]] == [c.answer.text for c in asked.columns]
    assert stored["answers"][0]["pieces"] == ["Yes", " </s>"]
