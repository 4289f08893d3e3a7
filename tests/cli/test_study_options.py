"""Options of a study as the command line takes them."""

from __future__ import annotations

import json

import pytest

from rvelens.cli import main
from rvelens.cli.study import _pairs, parse_study_options
from rvelens.studies import find_study


def test_options_are_json_but_for_those_that_are_texts():
    defaults = {"question": "", "layer": -1}
    given = ["question=7", "layer=7", "other=[1, 2]", "word=x"]
    assert parse_study_options(given, defaults) == {
        "question": "7",
        "layer": 7,
        "other": [1, 2],
        "word": "x",
    }
    with pytest.raises(ValueError, match="--option layer: expected NAME=VALUE"):
        parse_study_options(["layer"], defaults)


def test_a_limit_draws_pairs_too(tmp_path):
    lines = [
        {"image": "1.png", "question": f"Does a man hold a {n}?", "contrastive": f"Eat {n}?"}
        for n in range(9)
    ]
    (tmp_path / "1.png").touch()
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    study = find_study("ars-map")
    every = _pairs(study, file, tmp_path, None, of_scenes=False)
    assert [pair.contrastive for pair in every] == [line["contrastive"] for line in lines]
    some = _pairs(study, file, tmp_path, 4, of_scenes=True)
    places = [every.index(pair) for pair in some]
    assert places == sorted(places)
    assert places not in (list(range(4)), list(range(5, 9)))
    assert some == _pairs(study, file, tmp_path, 4, of_scenes=True)
    assert len(_pairs(study, None, None, 3, of_scenes=True)) == 3
    assert _pairs(find_study("sweep"), None, None, 3, of_scenes=False) == []
    with pytest.raises(ValueError, match="study ars-map without contrastive pairs: expected --pai"):
        _pairs(study, None, None, 3, of_scenes=False)


def test_reviewed_pairs_alone(tmp_path):
    (tmp_path / "1.png").touch()
    lines = [
        {"image": "1.png", "question": "Does a man hold it?", "contrastive": "Does a man see it?"}
        | {"id": str(decision), "decision": decision}
        for decision in ("accepted", None, "rejected", "edited")
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    study = find_study("ars-map")
    found = _pairs(study, file, tmp_path, None, of_scenes=False, reviewed=True)
    assert [pair.id for pair in found] == ["accepted", "edited"]
    found = _pairs(study, file, tmp_path, None, of_scenes=False)
    assert [pair.id for pair in found] == ["accepted", "None", "edited"]
    with pytest.raises(ValueError, match="--reviewed without --pairs: expected a file of reviewed"):
        _pairs(study, None, None, None, of_scenes=True, reviewed=True)


@pytest.mark.parametrize("benchmark", ["action-scenes", "action-scenes-turns"])
def test_a_model_of_ones_own_is_asked_the_pairs_of_action_scenes_it_is_measured_on(
    tmp_path, monkeypatch, benchmark
):
    """A model trained by examples/train_tiny.py is compared with the embedded one by one command."""
    asked = []

    def stop(study, model, benchmarks, output, **given):
        asked.append(given["pairs"])
        raise ValueError("far enough")

    monkeypatch.setattr("rvelens.studies.kit.run.run_study", stop)
    monkeypatch.setattr("rvelens.cli.study.open_model", lambda name, **_: None)
    monkeypatch.setattr("rvelens.cli.study.load_benchmark", lambda name, *_, **__: name)
    monkeypatch.setattr("rvelens.cli.study.check_images", lambda benchmarks: None)
    arguments = ["study", "head-scores", "--model", "mine", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*arguments, "--benchmark", benchmark])
    with pytest.raises(SystemExit):
        main([*arguments, "--benchmark", f"action-scenes-open,{benchmark}"])
    assert [len(pairs) for pairs in asked] == [128, 128]
    # Named by nobody, the study's own benchmark says nothing about the model.
    with pytest.raises(SystemExit):
        main(arguments)
    with pytest.raises(SystemExit):
        main([*arguments, "--benchmark", benchmark, "pope-random"])
    assert len(asked) == 2
