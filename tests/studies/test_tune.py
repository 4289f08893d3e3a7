"""Tuning never sees the photographs it reports on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import measured, tiny

from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.tuned import Tuned
from rvelens.interventions.methods import make_method
from rvelens.studies import find_study
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study
from rvelens.studies.tune import split

FEW = {"alphas": [0.05, 0.3], "betas": [1.0], "ks": [2], "rounds": 2}
SCENES = load_benchmark("action-scenes", n=30)
OTHERS = replace(SCENES, items=tuple(replace(i, source=f"other-{i.source}") for i in SCENES.items))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("tune")
    study, setup, data = measured("tune", out, n=40, share=0.4, **FEW)
    write_study(out, study, [{}], [data], study.show(setup, [data]))
    return out, setup, data


@settings(max_examples=30, deadline=None)
@given(st.floats(0.06, 0.94), st.integers(0, 999), st.integers(1, 3))
def test_photographs_are_on_one_side(share, seed, each):
    items = tuple(replace(i, source=f"photo-{n // each}") for n, i in enumerate(SCENES.items))
    whole = replace(SCENES, items=items)
    validation, test = split(whole, share, seed)
    sides = [{i.source for i in part.items} for part in (validation, test)]
    assert not sides[0] & sides[1]
    assert len(validation.items) + len(test.items) == len(items)
    assert len(sides[0]) == round(share * len(sides[0] | sides[1]))


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_a_share_that_leaves_a_side_empty(share):
    with pytest.raises(ValueError, match=f"share={share} of 30 photographs to tune on"):
        split(SCENES, share, 0)


def test_search_takes_the_best_of_what_it_tried(tuned):
    _, setup, data = tuned
    values = [row["value"] for row in data["search"]]
    assert values == sorted(values)
    first = data["search"][0]
    assert first["axis"] == "layers"
    assert first["tried"] == 21
    assert data["search"][-1]["value"] >= data["search"][0]["value"]
    seen = set(data["tuned"]["photographs"])
    assert len(seen) == 16
    assert data["result"]["questions"] == 24
    assert not {i.source for i in setup.benchmark.items if i.source not in seen} & seen


def test_the_best_by_asking_again(tuned):
    _, setup, data = tuned
    model, profile = tiny()
    seen = set(data["tuned"]["photographs"])
    items = [i for i in setup.benchmark.items if i.source in seen]
    method = make_method("rve", model, profile, **data["tuned"]["setting"])
    with model.hooks(method.hooks):
        said = model.ask([i.load() for i in items], [i.text for i in items])
    hits = {
        truth: [
            (s.lower() == "yes") == i.truth
            for s, i in zip(said, items, strict=True)
            if i.truth == truth
        ]
        for truth in (True, False)
    }
    balanced = sum(sum(one) / len(one) for one in hits.values()) / 2
    assert balanced == pytest.approx(data["search"][-1]["value"])


def test_report_on_what_it_was_tuned_on_is_refused(tuned):
    out, setup, data = tuned
    found = Tuned.load(out)
    assert found.to_json() == data["tuned"]
    with pytest.raises(ValueError, match=r"16 of 40 questions of action-scenes are about"):
        found.refuse_report_on(setup.benchmark)
    _, test = split(setup.benchmark, 0.4, setup.seed)
    found.refuse_report_on(test)


def test_two_benchmarks_that_share_photographs(tmp_path):
    model, profile = tiny()
    methods = [make_method("rve", model, profile)]
    options = {**FEW, "rounds": 1}

    def go(second, out):
        return run_study(
            find_study("tune"), model, [SCENES, second], out,
            profile=profile, methods=methods, options=options, batch_size=15,
        )  # fmt: skip

    with pytest.raises(ValueError, match="photographs that RVE was tuned on"):
        go(SCENES, tmp_path / "a")
    assert not list((tmp_path / "a").rglob("validation*"))  # before the search
    _, _, data = go(OTHERS, tmp_path / "b")
    assert data["result"]["questions"] == data["validation"]["questions"] == 30


def test_shared_photographs_are_refused_before_the_search(tmp_path):
    model, profile = tiny()
    with pytest.raises(ValueError, match="photographs that RVE was tuned on"):
        run_study(
            find_study("tune"), model, [SCENES, SCENES], tmp_path, profile=profile,
            methods=[make_method("rve", model, profile)], options=FEW,
        )  # fmt: skip
    assert not list(tmp_path.rglob("validation*"))


def test_questions_that_do_not_tell_what_is_asked(tmp_path):
    """One truth alone has no balanced accuracy: -1 would be shown as if it were measured."""
    model, profile = tiny()
    one = replace(SCENES, items=tuple(i for i in SCENES.items if i.truth)[:6])

    def go(benchmark, **options):
        run_study(
            find_study("tune"), model, [benchmark], tmp_path, profile=profile,
            methods=[make_method("rve", model, profile)], options=FEW | options,
        )  # fmt: skip

    for by in ("balanced_accuracy", "auc"):
        with pytest.raises(
            ValueError, match=rf"2 questions of .* do not determine the {by} of the plain"
        ):
            go(one, by=by)
        shutil.rmtree(tmp_path / "parts")
    with pytest.raises(ValueError, match="rounds=0: expected at least 1"):
        go(one, rounds=0)


@pytest.mark.parametrize("name", ["tune", "sweep", "ablation"])
def test_open_ended_questions_are_refused(name, tmp_path):
    model, profile = tiny()
    scenes = load_benchmark("action-scenes-open", n=4)
    with pytest.raises(ValueError, match=f"study '{name}' on action-scenes-open, which has open"):
        run_study(
            find_study(name), model, [scenes], tmp_path, profile=profile,
            methods=[make_method("rve", model, profile)],
        )  # fmt: skip


def test_misuse(tmp_path, tuned):
    with pytest.raises(ValueError, match="tuning by 'luck': expected one of auc, accuracy"):
        measured("tune", tmp_path / "a", n=8, by="luck")
    with pytest.raises(ValueError, match=r"no file .*none\.json: expected the tune\.json"):
        Tuned.load(tmp_path / "none.json")
    found = Tuned.load(tuned[0])
    with pytest.raises(
        ValueError, match="settings tuned for the model rvelens/tiny, and this is x"
    ):
        found.refuse_other("x", found.profile)
    with pytest.raises(ValueError, match="settings tuned for the head profile"):
        found.refuse_other("rvelens/tiny", "0")
