"""`rvelens study`: what it writes and prints, and one sentence for every mistake."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from PIL import Image
from tiny_models import IMAGES

from rvelens import studies
from rvelens.benchmarks import load_benchmark
from rvelens.cli import main

COMMAND = ("study", "open-ended", "--benchmark", "action-scenes-open")
METHOD = ("--method", "vanilla")


def few(name, data, limit=None, **options):
    """A benchmark with four scenes, in place of a thousand that must be drawn first."""
    return load_benchmark(name, data, limit=limit, n=4, **options)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run `rvelens` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    # By its module: in the package that name is the command.
    monkeypatch.setattr("rvelens.cli.study.load_benchmark", few)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


def test_every_study_is_listed_with_its_options(run):
    code, out, _ = run("study", "list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(studies.NAMES) <= set(lines)
    assert "Tables 1, 3, 4" in lines["main-table"]
    assert "--option n_cases=12" in out
    assert '--option against="rve"' in out


def test_files_are_written_and_tables_printed(run, tmp_path):
    code, out, _ = run(*COMMAND, "--out", "kept")
    assert code == 0
    for piece in ("exact match, no judge", "action-scenes-open", "in kept: open-ended.json"):
        assert piece in out
    folder = tmp_path / "kept"
    whole = json.loads((folder / "open-ended.json").read_text())
    assert whole["study"] == "open-ended"
    assert whole["models"][0]["made_with"]["options"] == {"judge_model": "", "judge_concurrency": 8}
    assert whole["models"][0]["measured"]["methods"] == ["vanilla", "rve"]
    assert (folder / "open-ended.csv").read_text().startswith("model,benchmark,group,method,")
    assert "| model | benchmark |" in (folder / "open-ended.md").read_text()
    with Image.open(folder / "open-ended.png") as picture:
        assert picture.width > 900
    assert ElementTree.parse(folder / "open-ended.svg").getroot().tag.endswith("svg")


def test_json_is_alone_on_stdout_and_the_same_when_run_again(run, tmp_path):
    first = run(*COMMAND, *METHOD, "--out", "kept", "--json")
    assert first[0] == 0
    whole = json.loads(first[1])
    assert whole["study"] == "open-ended"
    assert whole["measured"][0]["model"] == "rvelens/tiny"
    answers = [p.read_bytes() for p in sorted(tmp_path.rglob("answers.jsonl"))]
    assert run(*COMMAND, *METHOD, "--out", "kept", "--json")[1] == first[1]
    assert [p.read_bytes() for p in sorted(tmp_path.rglob("answers.jsonl"))] == answers


def test_other_settings_are_refused_with_the_difference(run):
    assert run(*COMMAND, *METHOD, "--out", "kept")[0] == 0
    for extra, said in (
        (("--seed", "7"), "seed was 55 and is 7"),
        (("--suffix", "One word."), 'decoding.suffix was "" and is "One word."'),
        (("--option", "judge_concurrency=2"), "options.judge_concurrency was 8 and is 2"),
    ):
        code, out, err = run(*COMMAND, *METHOD, "--out", "kept", *extra)
        assert (code, out) == (2, "")
        assert said in err
        assert "choose another folder" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("study", "main-tabel", "--out", "x"), "study 'main-tabel': expected one of imbalance,"),
        (("study", "main-tabel", "--out", "x"), "did you mean 'main-table'?"),
        (("study", "cases"), "study cases without --out: expected a folder for its files"),
        (
            ("study", "cases", "--out", "x", "--option", "n=3"),
            "has no option 'n': expected against",
        ),
        (
            ("study", "cases", "--out", "x", "--option", "n_cases=many"),
            "n_cases='many': expected a value like 12",
        ),
        (
            ("study", "cases", "--out", "x", "--option", "n_cases=true"),
            "n_cases=True: expected a value like 12",
        ),
        (
            ("study", "cases", "--out", "x", "--option", "n_cases"),
            "--option n_cases: expected NAME=VALUE",
        ),
        (
            ("study", "cases", "--out", "x", "--model", "a", "b"),
            "study cases with 2 models: expected one model",
        ),
        (
            ("study", "main-table", "--out", "x", "--model", "a", "b", "--profile", "p"),
            "1 profile for 2 models: expected one for each model, in the",
        ),
        (
            ("study", "cases", "--out", "x", "--benchmark", "nope"),
            "benchmark 'nope': expected one or several of",
        ),
        (
            ("study", "cases", "--out", "x", "--method", "rve", "--set", "pai.alpha=1"),
            "'pai' is not among the methods rve",
        ),
        (
            ("study", "cases", "--out", "x", "--relation", "action"),
            "action-scenes has no option 'relation'",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(run, tmp_path, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_pairs_are_reviewed_and_alike_as_for_a_scan(run, tmp_path):
    IMAGES[0].save(tmp_path / "1.png")
    row = {"image": "1.png", "question": "Does a man hold it?", "contrastive": "Is it eaten?"}
    (tmp_path / "p.jsonl").write_text(json.dumps({**row, "id": "p7"}))
    command = ("study", "ars-map", "--out", "kept", "--pairs", "p.jsonl", "--images", ".")
    code, out, err = run(*command, "--reviewed")
    assert (code, out) == (2, "")
    assert "none of them accepted or edited" in err
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert "pair 'p7': " in err
    assert "(--any-text)" in err
    (tmp_path / "p.jsonl").write_text(json.dumps({**row, "id": "p7", "decision": "edited"}))
    assert run(*command, "--reviewed", "--any-text", "--option", "n_draws=50")[0] == 0
    assert (tmp_path / "kept" / "ars-map.json").is_file()
