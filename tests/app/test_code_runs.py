"""The tab Runs as Python: the program runs, and prints the tables and the flipped answers shown."""

from __future__ import annotations

import json
import shutil

import pytest
from executing import executed

from rvelens.app.examples import example_run
from rvelens.app.runs_code import python_of_run
from rvelens.app.runs_tools import runs_tools_html
from rvelens.evaluate.flips import FlipFilter, flips, matching
from rvelens.evaluate.opened import open_run, strict_scores
from rvelens.evaluate.render import tables

NAME = "action-scenes"


@pytest.fixture(scope="module")
def example(models, tmp_path_factory):
    return example_run(models, tmp_path_factory.mktemp("examples"))


def check_printed(text, run, cases):
    """All cells of all tables, and the flips, are in what a program printed."""
    for table in tables(run.report):
        for row in table.text():
            assert all(str(cell) in text for cell in row), row
    assert [
        line.split()[1] for line in text.splitlines() if line.startswith(("gained", "lost"))
    ] == [case["id"] for case in cases]
    for case in cases:
        assert f"{case['direction']} {case['id']} {case['question']}" in text
        assert case["after"]["answer"] in text


@pytest.mark.parametrize(
    "criteria", [{}, {"direction": "gained", "text": "is"}, {"group": "CP-no"}]
)
def test_the_program_prints_what_the_tab_shows(
    models, example, criteria, tmp_path, monkeypatch, capsys
):
    run, criteria = open_run(str(example)), FlipFilter(NAME, "rve", **criteria)
    executed(python_of_run(run, criteria, models, is_example=False), tmp_path, monkeypatch)
    check_printed(capsys.readouterr().out, run, matching(flips(run, NAME, "rve"), criteria))
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")


def test_the_program_of_the_example_makes_it_again(models, example, tmp_path, monkeypatch, capsys):
    run, criteria = open_run(str(example)), FlipFilter(NAME, "rve")
    code = python_of_run(run, criteria, models, is_example=True)
    names = executed(code, tmp_path, monkeypatch)
    assert str(example) not in code
    assert names["run"].report["benchmarks"] == run.report["benchmarks"]
    assert names["cases"] == flips(run, NAME, "rve")
    check_printed(capsys.readouterr().out, run, names["cases"])


def test_names_of_a_foreign_run_are_text_in_its_program(
    models, example, tmp_path, monkeypatch, capsys
):
    """A report is a file of others: its names are never code."""
    shutil.copytree(example, tmp_path / "run")
    name = 'rve", hacked := 1, "'
    report = json.loads(
        (tmp_path / "run/report.json").read_text().replace('"rve"', json.dumps(name))
    )
    (tmp_path / "run/report.json").write_text(json.dumps(report))
    (tmp_path / "run" / NAME / "rve").rename(tmp_path / "run" / NAME / name)
    run = open_run(str(tmp_path / "run"))
    criteria = FlipFilter(NAME, name)
    names = executed(python_of_run(run, criteria, models, is_example=False), tmp_path, monkeypatch)
    assert "hacked" not in names
    assert names["cases"] == flips(run, NAME, name)
    assert f"   {name} " in capsys.readouterr().out


def test_the_buttons_are_those_that_work(models, example):
    run, filters = open_run(str(example)), ("rve", "both", "all", "")
    assert runs_tools_html(models, None, None, filters, example) == ""
    html = runs_tools_html(models, run, NAME, filters, example)
    assert html.count("<button") == 3
    assert "evaluate(model" in html
    assert "evaluate(model" not in runs_tools_html(models, run, NAME, filters, example / "other")
    assert (
        runs_tools_html(models, run, None, (None, "both", "all", ""), example).count("<button") == 1
    )


def test_scores_are_of_the_runs_own_benchmarks(example):
    run = open_run(str(example))
    scores, share = strict_scores(run, NAME)
    truths = [item.truth for item in run.items[NAME].values()]
    assert share == sum(truths) / len(truths)
    assert list(scores) == run.methods
    with pytest.raises(ValueError, match=r"scores of 'pope': expected a benchmark .*; choose from"):
        strict_scores(run, "pope")
