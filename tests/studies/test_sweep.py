"""A sweep's answers are those of each setting alone; its tables and figures show them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from small import measured, tiny

from rvelens.evaluate import Answer
from rvelens.heads.layers import contiguous_bands
from rvelens.hooks import rve_hooks
from rvelens.studies import sweep

FEW = {"alphas": [0.05, 0.3], "betas": [1.0, 2.0], "ks": [2, 99], "max_entropies": [0.6]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    return out, *measured("sweep", out, n=24, **FEW)


def test_every_setting_is_there_once(swept):
    _, _, _, data = swept
    assert len(data["axes"]["bands"]) == 6 * 7 // 2
    assert len(data["axes"]["surface"]) == 4
    assert set(data["axes"]["alpha"]) < set(data["axes"]["surface"])
    assert [data["settings"][n]["k"] for n in data["axes"]["k"]] == [2, 5]
    assert data["settings"]["entropy at most 0.6"]["max_entropy"] == 0.6
    assert "auto (ARS above its mean)" in data["layers"]
    widths = {len(data["settings"][name]["layers"]) for name in data["candidates"]}
    assert widths == {len(data["base"]["layers"])}
    json.dumps(data, allow_nan=False)


def test_fewer_bands():
    bands = {str(band): {"layers": band} for band in contiguous_bands(12, 4)}
    assert sweep._alike(bands, 5) == ["[0, 1, 2, 3]", "[4, 5, 6, 7]", "[8, 9, 10, 11]"]
    assert len(sweep._alike(bands, 12)) == 1


def test_answers_are_those_of_each_setting_alone(swept):
    _, _, setup, data = swept
    model, profile = tiny()
    items = setup.benchmark.items[:4]
    names = [
        "layers 3-5, K 5, alpha 0.3, beta 2",
        "entropy at most 0.6",
        "layers 0-1, K 5, alpha 0.05, beta 1",
    ]
    kept = setup.parts.folder / f"{setup.benchmark.name}.jsonl"
    rows = {}
    for line in kept.read_text().splitlines():
        rows |= json.loads(line)
    order = ["vanilla", *data["settings"]]
    for name in names:
        with model.hooks(rve_hooks(profile, **data["settings"][name])):
            alone = model.ask([i.load() for i in items], [i.text for i in items])
        assert alone == [rows[i.id][order.index(name)][0] for i in items]


def test_accuracy_by_counting(swept):
    _, _, setup, data = swept
    answers = setup.answers(
        setup.benchmark.name, setup.benchmark, {key: [] for key in ["vanilla", *data["settings"]]}
    )
    for name in ("vanilla", data["axes"]["bands"][3]):
        right = [
            (answers[name][item.id].text.lower() == "yes") == item.truth
            for item in setup.benchmark.items
        ]
        found = data["result"]["rules"]["official"]["methods"][name]["accuracy"]["value"]
        assert found == pytest.approx(np.mean(right), abs=1e-6)


def test_the_most_confident_setting_of_each_question():
    a = {"1": Answer("1", "Yes", 0.5), "2": Answer("2", "No", -3.0), "3": Answer("3", "a", None)}
    b = {"1": Answer("1", "No", -0.6), "2": Answer("2", "Yes", 2.0), "3": Answer("3", "b", None)}
    chosen = sweep.most_confident([a, b])
    assert [one.text for one in chosen.values()] == ["No", "No", "a"]


def test_what_is_shown(swept):
    _, study, setup, data = swept
    shown = study.show(setup, [data])
    assert set(shown.figures) == {"", "bands", "alpha", "beta", "k"}
    assert len(shown.tables[""].rows) == 1 + len(data["settings"])
    assert next(r[0] for r in shown.tables["layers"].rows) == "vanilla"
    assert "preset: 3-5" in {r[0] for r in shown.tables["layers"].rows}
    assert len(shown.sentences) == 3


def test_peaks_are_where_accuracy_is_highest(swept):
    _, study, setup, data = swept
    methods = data["result"]["rules"]["official"]["methods"]
    said = study.show(setup, [data]).sentences[2]
    for axis, name in (("alpha", "alpha"), ("beta", "beta"), ("k", "K")):
        by_value = {
            data["settings"][n][axis]: methods[n]["accuracy"]["value"] for n in data["axes"][axis]
        }
        highest = max(by_value.values())
        at = min(x for x, y in by_value.items() if y == highest)
        assert f"{name} {at:g} ({highest:.3f})" in said


def test_bars_are_of_the_paired_change(swept):
    _, _, _, data = swept
    axes = sweep._line(data, "beta").axes[0]
    plain = data["result"]["rules"]["official"]["methods"]["vanilla"]["accuracy"]["value"]
    pairs = {
        p["after"]: p["change"]["accuracy"] for p in data["result"]["rules"]["official"]["pairs"]
    }
    ends = [
        sorted(segment[:, 1])
        for bars in axes.collections
        for segment in bars.get_segments()
        if len(segment) == 2 and segment[0, 0] == segment[1, 0]
    ]
    for name in data["axes"]["beta"]:
        change = pairs[name]
        assert any(
            np.allclose(one, [plain + change["low"], plain + change["high"]], atol=1e-6)
            for one in ends
        )


def test_the_largest_change_is_called_one_only_if_it_is_a_gain(swept):
    _, study, setup, data = swept
    data = copy.deepcopy(data)
    pairs = data["result"]["rules"]["official"]["pairs"]
    for pair in pairs:
        pair["change"]["accuracy"] = {"value": 0.0, "low": -0.1, "high": 0.1}
    said = study.show(setup, [data]).sentences
    assert said[1] == "no setting does better than the plain model on these questions."
    pairs[3]["change"]["accuracy"] = {"value": 0.125, "low": 0.1, "high": 0.2}
    said = study.show(setup, [data]).sentences
    assert said[1].startswith(
        f"the largest change is +0.125 [+0.100, +0.200] ({pairs[3]['after']});"
    )
    assert "tune on others" in said[1]


def test_a_ranking_without_scores_has_no_auto(swept):
    _, study, setup, data = swept
    assert len(study.show(setup, [data]).tables["layers"].notes) == 1
    data = {**data, "layers": [name for name in data["layers"] if name != sweep.AUTO]}
    assert (
        "a published ranking has no scores" in study.show(setup, [data]).tables["layers"].notes[1]
    )


def test_an_interrupted_sweep_goes_on(swept, tmp_path, monkeypatch):
    _out, _, _, whole = swept
    from rvelens.studies.kit import base

    calls = []
    each = base.answer_each

    def once(*args):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return each(*args)

    monkeypatch.setattr(base, "answer_each", once)
    with pytest.raises(KeyboardInterrupt):
        measured("sweep", tmp_path, n=24, **FEW)
    _, _, data = measured("sweep", tmp_path, n=24, **FEW)
    assert data == whole
    assert len(calls) == 3  # the first batch was not asked again


def test_other_settings_are_refused_in_the_same_folder(swept):
    out, *_ = swept
    with pytest.raises(ValueError, match=r"options.alphas was \[0.05, 0.3\] and is \[0.1\]"):
        measured("sweep", out, n=24, **{**FEW, "alphas": [0.1]})


def test_without_rve(swept, tmp_path):
    with pytest.raises(ValueError, match="a study of RVE without the method rve"):
        measured("sweep", tmp_path, n=4, methods=("vanilla",))


def test_setup_knows_its_profile(swept):
    _, _, setup, _ = swept
    with pytest.raises(ValueError, match="this study needs a head profile"):
        _ = replace(setup, profile=None).ranking


def test_few_photographs_say_nothing(swept):
    data = swept[3]
    pairs = data["result"]["rules"]["official"]["pairs"]
    assert len(sweep._conclude(data)) == 3
    few = [pair | {"verdict": "too few photographs to say"} for pair in pairs]
    rules = {"official": data["result"]["rules"]["official"] | {"pairs": few}}
    said = sweep._conclude(data | {"result": data["result"] | {"rules": rules}})
    assert said == ("too few photographs to say anything.",)
