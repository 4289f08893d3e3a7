"""One's own questions on the command line: `eval`, `study cases` and `tune`."""

from __future__ import annotations

import csv
import json

import pytest

from rvelens.benchmarks import load_benchmark

OWN = ("--questions", "my.csv", "--images", "images", "--column", "image=picture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve scenes as a file, and two malformed rows."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "images").mkdir()
    with (folder / "my.csv").open("w", newline="") as opened:
        lines = csv.writer(opened)
        lines.writerow(["picture", "question", "label", "group"])
        for n, item in enumerate(load_benchmark("action-scenes", n=12).items):
            item.load().save(folder / "images" / f"{n}.png")
            lines.writerow([f"{n}.png", item.text, item.label, item.group[:2]])
        lines.writerow(["0.png", "Does it?", "perhaps", ""])
        lines.writerow(["12.png", "Does it?", "yes", ""])
    return folder


@pytest.fixture
def run(run_command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return run_command


def test_eval_says_what_it_read(run, folder):
    methods = ("--method", "vanilla", "pai", "--max-new-tokens", "3", "--batch-size", "12")
    code, out, err = run("eval", "rvelens/tiny", *OWN, *methods, "--out", "run", "--json")
    assert code == 0, err
    assert err.splitlines() == [
        "rvelens: my: 12 questions about 12 images (6 yes, 6 no); rule strict: The first word is yes "
        "or no, in any case and punctuation, and the other never follows.",
        "rvelens: left out: my.csv line 14: 'label' is 'perhaps': expected yes or no; correct the row.",
        "rvelens: left out: my.csv line 15: no image '12.png' below images: expected a file "
        "there; correct the row.",
    ]
    report = json.loads(out)
    assert report["benchmarks"]["my"]["questions"] == 12
    assert report["benchmarks"]["my"]["malformed"] == 2
    assert "my, strict rule, accuracy by group" in (folder / "run" / "report.md").read_text()


def test_study_cases_and_tune_take_them(run, folder):
    code, out, err = run("study", "cases", *OWN, "--out", "cases")
    assert code == 0, err
    assert "tiny, my: rve against vanilla gains" in out
    assert (folder / "cases" / "cases.html").exists()
    few = {
        "by": "accuracy",
        "share": 0.5,
        "rounds": 1,
        "band_step": 3,
        "alphas": [0.1],
        "betas": [1],
    }
    options = [word for pair in few.items() for word in ("--option", "{}={}".format(*pair))]
    code, out, err = run("study", "tune", *OWN, *options, "--out", "tuned")
    assert code == 0, err
    assert "my, 6 test questions" in out


def test_tune_passes_them_on(run):
    code, _, err = run("tune", "rvelens/tiny", *OWN, "--rule", "x", "--out", "other")
    assert code == 2
    assert "rule 'x': expected one of auto, strict" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "eval without questions: expected a benchmark or your own; add --benchmark NAME"),
        (("--rule", "strict"), "--rule without --questions: expected the questions"),
        (("--column", "label=x"), "--column without --questions"),
        ((*OWN, "--rule", "x"), "rule 'x': expected one of auto, strict"),
        (
            (*OWN, "--column", "label"),
            "--column label: expected NAME=COLUMN; write it as in label=answer",
        ),
        ((*OWN, "--relation", "action"), "--relation with --questions alone: expected it for a"),
        ((*OWN, "--data", "images"), "--data with --questions alone"),
        (("--questions", "no.csv"), "no questions at no.csv: expected a file"),
        (
            ("--questions", "my.csv", "--images", "no", *OWN[4:]),
            "no folder no: expected the folder",
        ),
    ],
)
def test_mistakes_are_one_sentence(run, words, said):
    code, _, err = run("eval", "rvelens/tiny", *words, "--out", "other")
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
