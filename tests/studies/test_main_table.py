"""Methods by benchmarks by models: scores, marks of the best, and what stands beside the paper."""

from __future__ import annotations

import copy
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from study_cases import StoppedError, count, hooked, measure, questions, stop_after, unreadable

from rvelens import ARSProfile
from rvelens.benchmarks import load_benchmark, rules
from rvelens.evaluate import Answer
from rvelens.model.hooked_lvlm import TINY, HookedLVLM
from rvelens.studies import find_study
from rvelens.studies.kit.base import Shown
from rvelens.studies.kit.paper import lookup
from rvelens.studies.kit.write import render_study, write_study
from rvelens.studies.main_table.study import confirmed_best, over_lists
from rvelens.tables import Table

METHODS = ("rve", "vanilla", "pai")


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", n=24)


@pytest.fixture(scope="module")
def profile():
    return ARSProfile.load(TINY / "profile.safetensors")


@pytest.fixture(scope="module")
def done(tiny, scenes, profile, tmp_path_factory):
    """A whole measurement, with rve named before vanilla."""
    out = tmp_path_factory.mktemp("main")
    return out, *measure("main-table", tiny, [scenes], out, profile, METHODS)


def test_accuracy_and_f1_are_those_of_the_answers(done, tiny, scenes):
    out, setup, _, data = done
    assert data["methods"] == ["vanilla", "rve", "pai"]
    shown = find_study("main-table").show(setup, [data])
    rows = {row[1]: row for row in shown.tables[""].rows}
    folder = out / "parts" / "main-table" / "rvelens--tiny" / "run" / "action-scenes"
    for method in METHODS:
        lines = (folder / method / "answers.jsonl").read_text().splitlines()
        said = [(row["id"], row["answer"]) for row in map(json.loads, lines)]
        truth = {item.id: item.truth for item in scenes.items}
        right = [truth[name] == (text.lower() == "yes") for name, text in said]
        hits = sum(truth[name] and text.lower() == "yes" for name, text in said)
        wrong = len(right) - sum(right)
        assert rows[method][2]["value"] == pytest.approx(sum(right) / 24, abs=1e-6)
        assert rows[method][3] == pytest.approx(2 * hits / (2 * hits + wrong), abs=1e-6)


def test_a_run_that_was_stopped_ends_the_same_and_asks_nothing_twice(
    done, tiny, scenes, profile, tmp_path
):
    with pytest.raises(StoppedError):
        measure("main-table", tiny, [scenes], tmp_path, profile, METHODS, progress=stop_after(3))
    seen = []
    *_, data = measure(
        "main-table", tiny, [scenes], tmp_path, profile, METHODS, progress=count(seen)
    )
    assert data == done[3]
    assert len(seen) == 6 - 3  # the three methods share each of 6 batches
    assert measure("main-table", tiny, [scenes], tmp_path, profile, METHODS)[2] == data


def test_changes_are_against_vanilla_wherever_it_was_named(done):
    _, setup, _, data = done
    changes = find_study("main-table").show(setup, [data]).tables["changes"]
    assert changes.title == "Changes against vanilla on the same questions"
    assert [row[2] for row in changes.rows] == ["rve", "pai"]
    accuracy = {name: accuracy_of(data, name)["value"] for name in data["methods"]}
    for row in changes.rows:
        assert row[3]["value"] == pytest.approx(accuracy[row[2]] - accuracy["vanilla"], abs=2e-6)
        assert row[5] - row[6] == round(24 * row[3]["value"])


def test_two_models_stand_side_by_side(done):
    _, setup, _, data = done
    other = copy.deepcopy(data)
    other["model"] = "folder/other"
    shown = find_study("main-table").show(setup, [data, other])
    assert shown.tables[""].columns == (
        "benchmark", "method", "tiny: accuracy", "tiny: F1", "tiny: best", "other: accuracy",
        "other: F1", "other: best",
    )  # fmt: skip
    assert set(shown.figures) == {"tiny", "other"}
    assert {row[0] for row in shown.tables["changes"].rows} == {"tiny", "other"}
    other["model"] = "elsewhere/tiny"
    assert (
        "elsewhere/tiny: F1"
        in find_study("main-table").show(setup, [data, other]).tables[""].columns
    )


def test_files_are_written_and_the_papers_rows_stay_out_of_a_terminal(done):
    out, setup, made_with, data = done
    study = find_study("main-table")
    shown = study.show(setup, [data])
    names = {path.name for path in write_study(out, study, [made_with], [data], shown)}
    assert {
        "main-table.json", "main-table.csv", "main-table-changes.csv", "main-table-more.csv",
        "main-table-table1.csv", "main-table-table3.csv", "main-table-table4.csv",
        "main-table.png", "main-table.svg", "main-table.md",
    } == names  # fmt: skip
    assert len((out / "main-table-table1.csv").read_text().splitlines()) == 251
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_study(shown))
    said = console.export_text()
    assert "Table 1, action relations: 250 rows, in the files." in said
    assert "llava-next-7b" not in said
    assert (
        "| llava-1.5-7b, mmrel-real, action, vanilla | accuracy | 0.7112 |"
        in (out / "main-table.md").read_text()
    )


@pytest.mark.parametrize(("width", "lines"), [(160, 1), (118, 2), (70, 2)])
def test_no_number_is_cut_off_in_a_terminal(width, lines):
    number = {"value": -0.25, "low": -0.5, "high": 0.125}
    table = Table("t", ("layer", *"abcdef"[: 6 if width > 70 else 3]), [["all", *[number] * 6]])
    rows = replace(table, rows=[row[: len(table.columns)] for row in table.rows])
    console = Console(width=width, file=io.StringIO())
    console.print(render_study(Shown({"": rows})))
    said = console.file.getvalue()
    n = len(rows.columns) - 1
    assert said.count("-0.250") == said.count("[-0.500, 0.125]") == n
    assert ("-0.250 [-0.500, 0.125]" in said) == (lines == 1)
    assert "layer" in said
    assert "all" in said


def test_what_is_said_claims_only_what_is_confirmed(done):
    _, setup, _, data = done
    says = find_study("main-table").show(setup, [data]).sentences
    pairs = data["report"]["benchmarks"]["action-scenes"]["rules"]["official"]["pairs"]
    for method in ("rve", "pai"):
        (pair,) = (p for p in pairs if (p["before"], p["after"]) == ("vanilla", method))
        (line,) = (s for s in says if f"{method} against vanilla" in s)
        assert line.startswith(
            f"tiny, action-scenes: {method} against vanilla: {pair['verdict']} ("
        )


# -- the best method ---------------------------------------------------------------------------------


def result(values, low, high, p=0.01, verdict="more accurate", before="a", after="b"):
    methods = {name: {"accuracy": {"value": x}, "f1": {"value": x}} for name, x in values.items()}
    change = {"value": (low + high) / 2, "low": low, "high": high}
    pair = {
        "before": before, "after": after, "change": {"accuracy": change, "f1": change},
        "mcnemar_p": p, "verdict": verdict,
    }  # fmt: skip
    return {"methods": methods, "pairs": [pair]}


@pytest.mark.parametrize(
    ("given_", "metric", "best"),
    [
        (result({"a": 0.5, "b": 0.6, "c": 0.1}, 0.02, 0.2), "accuracy", "b"),
        (result({"a": 0.6, "b": 0.5, "c": 0.1}, -0.2, -0.02), "accuracy", "a"),
        (result({"a": 0.5, "b": 0.6}, -0.01, 0.2), "accuracy", None),
        (result({"a": 0.5, "b": 0.6}, 0.02, 0.2, p=0.06), "accuracy", None),
        (result({"a": 0.5, "b": 0.6}, 0.02, 0.2, p=0.06), "f1", "b"),
        (result({"a": 0.5, "b": 0.6}, 0.02, 0.2, verdict="too few photographs to say"), "f1", None),
        (result({"a": 0.5, "b": 0.5}, 0.0, 0.0), "f1", None),
    ],
)
def test_the_best_is_marked_only_where_its_lead_is_confirmed(given_, metric, best):
    assert confirmed_best(given_, metric) == best


def test_one_method_alone_is_not_the_best():
    assert confirmed_best({"methods": {"a": {"f1": {"value": 1.0}}}, "pairs": []}, "f1") is None


# -- means over lists --------------------------------------------------------------------------------


@given(st.data())
def test_means_over_lists_are_those_of_plain_loops(data):
    n = 8
    benchmark = questions(n, truth=lambda k: k % 3 == 0, rule=rules.rbench)
    ids = [item.id for item in benchmark.items]
    lists = [frozenset(data.draw(st.sets(st.sampled_from(ids)))) for _ in range(3)]
    benchmark = replace(benchmark, subsets={"level": lists})
    texts = data.draw(st.lists(st.sampled_from(["Yes", "No"]), min_size=n, max_size=n))
    said = {"m": {name: Answer(name, text, 0.0) for name, text in zip(ids, texts, strict=True)}}
    found = over_lists(benchmark, said, 1)
    if not any(lists):
        assert found == {}
        return
    accuracies, f1s = [], []
    for one in lists:
        cells = [
            (item.truth, text == "Yes")
            for item, text in zip(benchmark.items, texts, strict=True)
            if item.id in one
        ]
        if cells:
            accuracies.append(sum(truth == yes for truth, yes in cells) / len(cells))
            hits = 2 * sum(truth and yes for truth, yes in cells)
            errors = sum(truth != yes for truth, yes in cells)
            f1s += [hits / (hits + errors)] if hits + errors else []
    assert found["lists"] == len(accuracies)
    assert found["m"]["accuracy"]["value"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    if f1s:
        assert found["m"]["f1"]["value"] == pytest.approx(np.mean(f1s), abs=1e-6)
    else:
        assert found["m"]["f1"] is None


# -- beside the paper --------------------------------------------------------------------------------


def as_paper(data, name, relation, over=None, model="llava-hf/llava-1.5-7b-hf"):
    """The measurement as if it were of another model and benchmark."""
    new = copy.deepcopy(data)
    new["model"] = model
    new["relations"] = {name: relation}
    new["over_lists"] = {name: over or {}}
    for key in ("benchmarks", "input"):
        new["report"][key] = {name: new["report"][key]["action-scenes"]}
    return new


def tables(done, data):
    return find_study("main-table").show(done[1], [data]).tables


def accuracy_of(data, method):
    one = next(iter(data["report"]["benchmarks"].values()))
    return one["rules"]["official"]["methods"][method]["accuracy"]


def test_action_questions_stand_beside_table_1_and_spatial_ones_beside_table_3(done):
    for relation, table, other in (("action", "table1", "table3"), ("spatial", "table3", "table1")):
        data = as_paper(done[3], "mmrel-real", relation)
        found = tables(done, data)
        (row,) = (
            row for row in found[table].rows
            if row[0] == f"llava-1.5-7b, mmrel-real, {relation}, rve" and row[1] == "accuracy"
        )  # fmt: skip
        (cell,) = lookup(
            table, model="llava-1.5-7b", benchmark="mmrel-real", method="rve", metric="accuracy"
        )
        assert row[3] == accuracy_of(data, "rve")
        assert row[4] == pytest.approx(row[3]["value"] - cell.value, abs=1e-6)
        assert all(row[3] is None for row in found[other].rows)
        assert not found[table].aside
        assert found[other].aside


def test_all_relations_together_stand_beside_nothing(done):
    found = tables(done, as_paper(done[3], "mmrel-real", "all"))
    assert all(row[3] is None for t in ("table1", "table3", "table4") for row in found[t].rows)
    assert any("all relations were asked about" in note for note in found["table1"].notes)


def test_another_model_stands_beside_nothing(done):
    found = tables(done, as_paper(done[3], "pope-random", "all", model="llava-1.5-7b-tuned"))
    assert all(row[3] is None for row in found["table4"].rows)
    assert (
        "measured on llava-1.5-7b-tuned, for which the paper has no number."
        in found["table4"].notes
    )


def test_pope_stands_beside_table_4_with_the_papers_dots(done):
    data = as_paper(done[3], "pope-random", "all")
    found = tables(done, data)
    measured = [row for row in found["table4"].rows if row[3] is not None]
    assert [row[0] for row in measured] == [
        f"llava-1.5-7b, pope-random, all, {m}" for m in ("vanilla", "vanilla", "rve", "rve")
    ]
    figure = find_study("main-table").show(done[1], [data]).figures[""]
    hollow = [line.get_xdata()[0] for line in figure.axes[0].lines
              if line.get_markerfacecolor() == "none"]  # fmt: skip
    assert [x for x in hollow if not math.isnan(x)] == [0.8707, 0.8863]
    n = data["report"]["benchmarks"]["pope-random"]["questions"]
    few = f"pope-random: measured on {n} of the 3000 questions that the paper's number is of."
    assert few in found["table4"].notes
    data["report"]["benchmarks"]["pope-random"]["questions"] = 3000
    assert not any("measured on" in note for note in tables(done, data)["table4"].notes)


def test_r_bench_is_compared_by_the_mean_over_its_lists(done):
    over = {"lists": 5, "rve": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "f1": None}}
    found = tables(done, as_paper(done[3], "rbench-image", "action", over))
    what = "llava-1.5-7b, rbench-image, action, rve"
    rows = {row[1]: row for row in found["table1"].rows if row[0] == what}
    assert rows["accuracy"][3] == over["rve"]["accuracy"]
    assert rows["f1"][3] is None
    assert "rbench-image: measured is the mean over 5 published lists of questions." in (
        found["table1"].notes
    )
    assert "mean over lists" in found[""].columns
    without = tables(done, as_paper(done[3], "rbench-image", "action"))
    assert any("the published lists are not there" in note for note in without["table1"].notes)


def test_boxes_and_masks_are_both_shown_and_neither_is_compared(done):
    box = as_paper(done[3], "rbench-instance-box", "action")
    mask = as_paper(done[3], "rbench-instance-mask", "action")
    for key in ("relations", "over_lists"):
        box[key] |= mask[key]
    for key in ("benchmarks", "input"):
        box["report"][key] |= mask["report"][key]
    found = tables(done, box)
    assert all(row[3] is None for row in found["table1"].rows)
    table = found["instance"]
    (row,) = (r for r in table.rows if r[2:4] == ["rve", "accuracy"])
    (cell,) = lookup(
        "table1", model="llava-1.5-7b", benchmark="rbench-instance", method="rve", metric="accuracy"
    )
    assert row[4:] == [cell.value, accuracy_of(box, "rve"), accuracy_of(box, "rve")]
    assert "neither is subtracted" in table.notes[0]


def test_doubtful_cells_have_footnotes(done):
    table = tables(done, done[3])["table1"]
    (row,) = (
        r for r in table.rows
        if r[0] == "llava-next-7b, rbench-instance, action, vanilla" and r[1] == "accuracy"
    )  # fmt: skip
    number = row[2].split("[")[1].rstrip("]")
    (note,) = (n for n in table.notes if n.startswith(f"[{number}]"))
    assert "No yes/no answers have both accuracy 64.59% and F1 83.15%" in note


def test_the_relation_is_that_which_the_questions_were_chosen_by(tmp_path):
    model, _ = hooked("llava")
    some = questions(2, name="some").keep([replace(i, group="action") for i in questions(2).items])
    chosen = replace(some.of_relation("action"), name="chosen")
    *_, data = measure("main-table", model, [some, chosen], tmp_path)
    assert data["relations"] == {"some": "all", "chosen": "action"}


# -- any model, any benchmark ------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["instructblip", "qwen2_5_vl", "llava_next"])
def test_any_family(family, tmp_path):
    model, profile = hooked(family)
    setup, _, data = measure(
        "main-table", model, [questions()], tmp_path, profile, ("vanilla", "rve", "vcd")
    )
    shown = find_study("main-table").show(setup, [data])
    assert [row[1] for row in shown.tables[""].rows] == ["vanilla", "rve", "vcd"]
    assert all(
        "too few photographs to say" in line for line in shown.sentences if "against" in line
    )


def test_questions_that_cannot_be_asked_are_counted_and_a_benchmark_of_them_is_told(tmp_path):
    model, _ = hooked("llava")
    some = questions()
    bad = [replace(item, load=unreadable) for item in some.items]
    nothing = replace(some.keep(bad), name="nothing")
    part = some.keep([bad[0], *some.items[1:3], bad[3], *some.items[4:]])
    setup, _, data = measure("main-table", model, [part, nothing], tmp_path)
    table = find_study("main-table").show(setup, [data]).tables[""]
    assert table.rows[1][:4] == ["nothing", "vanilla", None, None]
    assert "some: 4 questions." in table.notes
    assert any("some: 2 questions could not be asked" in note for note in table.notes)


def test_open_ended_questions_are_refused(tmp_path):
    model, _ = hooked("llava")
    benchmark = questions(truth=lambda k: None)
    with pytest.raises(ValueError, match="which has open-ended questions: expected yes/no"):
        measure("main-table", model, [benchmark], tmp_path)
