"""Options of a study as the command line takes them."""

from __future__ import annotations

import json

import pytest

from rvelens.cli.study import _options, _pairs
from rvelens.studies import find_study


def test_options_are_json_but_for_those_that_are_texts():
    defaults = {"question": "", "layer": -1}
    given = ["question=7", "layer=7", "other=[1, 2]", "word=x"]
    assert _options(given, defaults) == {"question": "7", "layer": 7, "other": [1, 2], "word": "x"}
    with pytest.raises(ValueError, match="--option layer: expected NAME=VALUE"):
        _options(["layer"], defaults)


def test_a_limit_draws_pairs_too(tmp_path):
    lines = [
        {"image": "1.png", "question": f"Does a man hold a {n}?", "contrastive": f"Eat {n}?"}
        for n in range(9)
    ]
    (tmp_path / "1.png").touch()
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    study = find_study("ars-map")
    every = _pairs(study, ["model"], file, tmp_path, None)
    assert [pair.contrastive for pair in every] == [line["contrastive"] for line in lines]
    some = _pairs(study, ["model"], file, tmp_path, 4)
    places = [every.index(pair) for pair in some]
    assert places == sorted(places)
    assert places not in (list(range(4)), list(range(5, 9)))
    assert some == _pairs(study, ["model"], file, tmp_path, 4)
    assert len(_pairs(study, ["rvelens/tiny"], None, None, 3)) == 3
    assert _pairs(find_study("sweep"), ["model"], None, None, 3) == []
    with pytest.raises(ValueError, match="study ars-map without contrastive pairs: expected --pai"):
        _pairs(study, ["model"], None, None, 3)


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
    found = _pairs(study, ["model"], file, tmp_path, None, reviewed=True)
    assert [pair.id for pair in found] == ["accepted", "edited"]
    assert [pair.id for pair in _pairs(study, ["model"], file, tmp_path, None)] == [
        "accepted",
        "None",
        "edited",
    ]
    with pytest.raises(ValueError, match="--reviewed without --pairs: expected a file of reviewed"):
        _pairs(study, ["rvelens/tiny"], None, None, None, reviewed=True)
