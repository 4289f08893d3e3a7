"""Rows of Tables 5 and 7 are the settings that they name."""

from __future__ import annotations

import math

import pytest
from small import measured, tiny

from rvelens.hooks import rve_hooks
from rvelens.studies import ablation
from rvelens.studies.ablation import TABLE_ROWS


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    return measured("ablation", tmp_path_factory.mktemp("ablation"), n=24)


def test_rows_are_the_settings_that_they_name(ablated):
    _, setup, data = ablated
    model, profile = tiny()
    items = setup.benchmark.items
    for name, one in TABLE_ROWS.items():
        hooks = [] if one is None else rve_hooks(profile, range(3, 6), scope=one[0], denoise=one[1])
        with model.hooks(hooks):
            said = model.ask([i.load() for i in items], [i.text for i in items])
        right = [(s.lower() == "yes") == i.truth for s, i in zip(said, items, strict=True)]
        found = data["benchmarks"]["action-scenes"]["rules"]["official"]["methods"][name]
        assert found["accuracy"]["value"] == pytest.approx(sum(right) / 24, abs=1e-6)


def test_what_is_shown(ablated):
    study, setup, data = ablated
    shown = study.show(setup, [data])
    assert [row[0] for row in shown.tables[""].rows] == list(TABLE_ROWS)
    assert len(shown.tables["paper"].rows) == 40
    assert all(row[3] is None for row in shown.tables["paper"].rows)
    assert "the paper has no number of it" in shown.tables["paper"].title
    assert [line.split(":")[1] for line in shown.sentences] == [
        " all heads rather than the sensitive half",
        " all heads rather than the sensitive half, denoised",
        " the denoising mask, sensitive heads",
        " the denoising mask, all heads",
    ]
    assert shown.tables["paper"].aside


def test_the_papers_model_on_its_questions_stands_beside_it(ablated):
    study, setup, data = ablated
    of_paper = {
        **data,
        "model": "llava-hf/llava-1.5-7b-hf",
        "relation": {"mmrel-real": "action"},
        "benchmarks": {"mmrel-real": data["benchmarks"]["action-scenes"]},
    }
    shown = study.show(setup, [of_paper])
    table = shown.tables["paper"]
    n = of_paper["benchmarks"]["mmrel-real"]["questions"]
    assert table.title.endswith(f"; measured on {n} questions")
    assert not table.aside
    rows = table.rows
    papers = [ablation._dot(of_paper, "mmrel-real", name).paper for name in TABLE_ROWS]
    assert papers == [0.7112, 0.7378, 0.7488, 0.7406, 0.7808]  # Table 5, LLaVA-1.5, top to bottom
    assert sum(row[3] is not None for row in rows) == 10
    first = next(row for row in rows if row[3] is not None)
    assert first[0] == "llava-1.5-7b, mmrel-real, action, scope none, denoise false"
    assert first[2].startswith("0.7112")
    assert first[4] == pytest.approx(first[3]["value"] - 0.7112, abs=1e-6)
    everything = {**of_paper, "relation": {"mmrel-real": "all"}}
    shown = study.show(setup, [everything])
    assert all(row[3] is None for row in shown.tables["paper"].rows)
    assert "the paper has no number of these questions" in shown.tables["paper"].title
    assert math.isnan(ablation._dot(everything, "mmrel-real", "vanilla").paper)
