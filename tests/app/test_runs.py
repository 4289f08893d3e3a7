"""Runs read back: figures, flips as the scores count them, filters and what is no run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from rvelens.app.markup import report_tables
from rvelens.app.shared import scene_pairs
from rvelens.app.tab_runs import cases_html
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import evaluate
from rvelens.evaluate.flips import FlipFilter, flips, groups, matching
from rvelens.evaluate.opened import open_run
from rvelens.interventions.methods import make_method


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    loaded = models.get("rvelens/tiny")
    made = [make_method(n, loaded.model, loaded.profile) for n in ("vanilla", "rve", "devils")]
    evaluate(loaded.model, [load_benchmark("action-scenes", n=24)], made, out, batch_size=12)
    return out


def test_flips_are_those_that_the_report_counts(folder):
    run = open_run(str(folder))
    assert (run.benchmarks, run.methods) == (["action-scenes"], ["vanilla", "rve", "devils"])
    for pair in run.report["benchmarks"]["action-scenes"]["rules"]["strict"]["pairs"][:2]:
        found = flips(run, "action-scenes", pair["after"])
        counts = [sum(f["direction"] == way for f in found) for way in ("gained", "lost")]
        assert counts == [pair["gained"], pair["lost"]]
    assert flips(run, "action-scenes", "rve")


def test_filters(folder):
    run = open_run(str(folder))
    found = flips(run, "action-scenes", "rve")
    one = found[0]

    def ids(**wanted):
        return [f["id"] for f in matching(found, FlipFilter("action-scenes", "rve", **wanted))]

    assert ids() == [f["id"] for f in found]
    assert one["id"] in ids(direction=one["direction"], group=one["group"], text=one["id"].upper())
    other = "lost" if one["direction"] == "gained" else "gained"
    assert one["id"] not in ids(direction=other)
    assert ids(text="no such words") == []
    assert groups(found)[0] == "all"
    assert one["group"] in groups(found)


def test_pictures_of_scenes_are_drawn_and_marked_with_the_runs_own_setting(folder, models):
    run = open_run(str(folder))
    found = flips(run, "action-scenes", "rve")[:1]
    choice = models.choose("rvelens/tiny")
    html = cases_html(models, choice, run, "action-scenes", "rve", found)
    assert html.count("<img") == 3
    assert "tokens marked in 1 to" in html
    plain = flips(run, "action-scenes", "devils")[:1]
    assert cases_html(models, choice, run, "action-scenes", "devils", plain).count("<img") == len(
        plain
    )


def test_another_profile_of_the_window_changes_no_run_or_is_the_reason(folder, models, tmp_path):
    run = open_run(str(folder))
    found = flips(run, "action-scenes", "rve")[:1]
    measured = models.measure(models.choose("rvelens/tiny"), scene_pairs()[:2])
    html = cases_html(models, measured, run, "action-scenes", "rve", found)
    assert html.count("<img") == 3  # with the model's own profile, which the run was made with
    report = run.report | {"methods": {"vanilla": {}, "rve": {"profile": "0123456789abcdef"}}}
    other = replace(run, report=report)
    html = cases_html(models, measured, other, "action-scenes", "rve", found)
    assert html.count("<img") == 1
    assert "digest 0123456789abcdef) is not the one of this window (head profile measured" in html
    report = run.report | {"model": {"name": "someone/else"}}
    html = cases_html(models, measured, replace(run, report=report), "action-scenes", "rve", found)
    assert html.count("<img") == 1
    assert "the run is of the model someone/else and this window works with rvelens/tiny" in html


def test_tables_are_those_of_the_report(folder):
    html = report_tables(open_run(str(folder)).report, "action-scenes")
    assert html.count("<table>") == 3
    assert "devils" in html


def test_a_picture_that_is_elsewhere_is_said_to_be(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for file in (copy / "action-scenes").rglob("answers.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row | {"image": "COCO_1.jpg"}) + "\n" for row in rows))
    item = next(iter(open_run(str(copy)).items["action-scenes"].values()))
    with pytest.raises(ValueError, match=r"the folder of the image COCO_1.jpg is unknown"):
        item.load()


def test_a_half_written_run_is_told(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    answers = tmp_path / "run" / "action-scenes" / "rve" / "answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(True)[:20]))
    run = open_run(str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"rve holds 20 answers: expected the 24 of the run's"):
        flips(run, "action-scenes", "rve")
    assert isinstance(flips(run, "action-scenes", "devils"), list)


def test_what_is_no_run(folder, tmp_path):
    with pytest.raises(ValueError, match="no folder is given: expected"):
        open_run("  ")
    with pytest.raises(
        ValueError, match=r"is not a run: expected a folder with a report.json of `rvelens eval`"
    ):
        open_run(str(tmp_path))
    with pytest.raises(ValueError, match=r"no folder .*nowhere: expected the folder with the"):
        open_run(str(folder), str(tmp_path / "nowhere"))
    whole = json.loads((folder / "report.json").read_text())
    for text in ("{", "[]", '{"benchmarks": {}}', "null", json.dumps(whole | {"notes": {"a": 1}})):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(
            ValueError,
            match=r"report.json (cannot be read|is not JSON) \(.*\): expected the report of",
        ):
            open_run(str(tmp_path))
    for name in ("..", ".", "a/b", "../a", "/tmp"):
        (tmp_path / "report.json").write_text(json.dumps(whole | {"benchmarks": {name: {}}}))
        with pytest.raises(
            ValueError, match=r"expected a benchmark or a method|does not name a file below"
        ):
            open_run(str(tmp_path))
    for part in ({"methods": {}}, {"model": {}}):
        (tmp_path / "report.json").write_text(json.dumps(whole | part))
        with pytest.raises(ValueError, match="names no method or no model: expected both; run"):
            open_run(str(tmp_path))
    with pytest.raises(ValueError, match=r"flips of 'vcd' on 'action-scenes': expected"):
        flips(open_run(str(folder)), "action-scenes", "vcd")
