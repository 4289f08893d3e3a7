"""`rvelens reproduce`: what it plans, measures and writes, and one sentence for every mistake."""

from __future__ import annotations

import json

import pytest
from published_scenes import write_scenes

from rvelens.cli import main


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run `rvelens reproduce rvelens/tiny` beside a data folder; returns code, stdout and stderr."""
    write_scenes(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        words = ("reproduce", "rvelens/tiny", "--out", "out", "--prompt", "chat", *arguments)
        with pytest.raises(SystemExit) as end:
            main(list(words))
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


DATA = ("--data", "data")


def test_tables_are_measured_and_what_lacks_is_listed(run, tmp_path):
    code, out, err = run(*DATA, "--table", "5", "4")
    assert code == 0
    assert "1 of 2: table5-7, mmrel-real: done" in err
    assert "2 of 2: table4, pope-random: done" in err
    assert "rvelens/tiny, mmrel-real, 8 questions: what is enhanced" in out
    assert "not run: pope-popular of table4: no coco_pope_popular.json" in out
    assert "published: COCO_val2014_*.jpg (6 GB): from http://images.cocodataset.org" in out
    assert "table4, table5-7: The paper says 'middle layers'" in out
    assert (tmp_path / "out/table4/pope-random/main-table.json").is_file()
    whole = json.loads((tmp_path / "out/reproduce.json").read_text())
    assert whole["reproduce"] == "rvelens/tiny"
    before = {p: p.read_bytes() for p in tmp_path.rglob("answers.jsonl")}
    assert before
    code, out, _ = run(*DATA, "--table", "5,4", "--json")
    assert code == 0
    assert json.loads(out) == whole
    assert {p: p.read_bytes() for p in tmp_path.rglob("answers.jsonl")} == before
    # Other settings in the same folder are refused, row by row.
    code, _, err = run(*DATA, "--table", "5", "--seed", "3")
    assert code == 1
    assert "seed was 55 and is 3" in err


def test_a_plan_measures_nothing(run, tmp_path):
    code, out, _ = run(*DATA, "--table", "1", "--plan", "--limit", "4")
    assert code == 0
    assert "Plan, the cheapest first" in out
    assert "measured on" in out
    assert "hours are left" in out
    assert not (tmp_path / "out").exists()
    code, out, _ = run(*DATA, "--table", "1", "--plan", "--limit", "4", "--json")
    plan = json.loads(out)
    assert [row["questions of"] for row in plan["rows"]] == ["mmrel-real", "amber-relation"]
    assert [row["prefill"] for row in plan["rows"]] == [4 * 6, 4 * 6]
    assert plan["hours"] >= 0


def test_a_plan_of_pairs_alone_times_their_questions(run, tmp_path):
    name = next((tmp_path / "data/val2014").iterdir()).name
    texts = {"question": "Does a man kick a ball?", "contrastive": "Does a man eat a ball?"}
    rows = [{"id": str(n), "image": name, **texts} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = ("--pairs", "pairs.jsonl", "--images", "data/val2014")
    code, out, _ = run(*DATA, "--figure", "5", "--plan", *pairs, "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert (row["questions of"], row["prefill"]) == ("pairs", 3 * 2)
    assert not (tmp_path / "out").exists()


def test_without_files_nothing_runs_and_the_archives_are_named(run, tmp_path):
    (tmp_path / "none").mkdir()
    code, out, err = run("--data", "none", "--table", "4")
    assert code == 1
    assert "coco_pope_*.json: from https://github.com/AoiDragon/POPE" in out
    assert "nothing can be run: expected some benchmark's files below --data" in err


def test_a_plan_in_several_processes_is_refused(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(*DATA, "--plan")
    assert code == 2
    assert "--plan in 2 processes: expected one; run it without a launcher." in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--table", "9"), "table '9': expected one of 1, 2, 3, 4, 5, 7; pass one of them."),
        (("--figure", "12"), "figure 12 is the judge's prompt; `rvelens judge` has its own"),
        (("--option", "layers=all"), "--option layers=all: expected STUDY.NAME=VALUE"),
        (("--option", "mask.layers=all"), "study 'mask': expected one of"),
        (("--option", "masking.depth=1"), "study 'masking' has no option 'depth'"),
        (("--pairs", "p.jsonl"), "--pairs and --images go together: expected both or none"),
        (("--data", "nowhere"), "no folder nowhere: expected the folder with the"),
        (("--without-pairs", "none"), "no pairs at none: expected a file"),
        (("--set", "rve.layers=50-60"), "50-60"),
    ],
)
def test_a_mistake_is_found_before_a_model_is_loaded(run, tmp_path, arguments, said):
    code, out, err = run(*DATA, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
