"""`rvelens data check`: what is there, missing and malformed, from Python and from the shell."""

from __future__ import annotations

import json

import pytest
from published import (
    REAL,
    instance_row,
    needs_real,
    pope_row,
    write_array,
    write_image,
    write_lines,
)

from rvelens.benchmarks.check import check_files
from rvelens.cli import main

FILE = "coco_pope_random.json"


@pytest.fixture
def folder(tmp_path):
    rows = [pope_row(n, image=f"{n}.jpg", label="yes" if n % 3 else "no") for n in range(8)]
    write_lines(tmp_path / FILE, [*rows, "{", pope_row(3)])
    write_image(tmp_path / "val2014" / "3.jpg")
    return tmp_path


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["data", "check", *map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


def test_what_is_found(folder):
    found = check_files("pope-random", folder)
    assert (found.questions, found.published) == (8, 3000)
    assert found.truths == {"yes": 5, "no": 3}
    assert found.images == 8
    assert found.missing == tuple(f"{n}.jpg" for n in (0, 1, 2, 4, 5, 6, 7))
    assert [problem.split(":")[0] for problem in found.problems] == [
        f"{FILE} line 9",
        f"{FILE} line 10",
    ]
    assert not found.complete


def test_masks_are_missing_too(tmp_path):
    write_array(tmp_path / "instance-level_filterd.json", [instance_row(0)])
    found = check_files("rbench-instance-mask", tmp_path)
    assert found.missing == ("0013ea2087020901.jpg", "instance_mask/0.png")


def test_the_table(folder, run):
    code, out, err = run("--benchmark", "pope-random", "--data", folder)
    assert (code, err) == (1, "")
    assert "pope-random: 8 of 3000 published questions (3 no, 5 yes)" in out
    assert f"file {FILE}, SHA-256 " in out
    assert "images: 1 of 8 are there" in out
    assert "missing images: 7\n  0.jpg\n  1.jpg\n" in out
    assert "and 2 more" in out
    assert f"malformed rows, left out: 2\n  {FILE} line 9: not JSON" in out


def test_json_alone(folder, run):
    code, out, err = run("--benchmark", "pope-random", "--data", folder, "--json")
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert found["missing"] == list(check_files("pope-random", folder).missing)
    assert found["complete"] is False


def test_a_complete_benchmark(run):
    code, out, _ = run("--benchmark", "action-scenes")
    assert code == 0
    assert "action-scenes: 1000 of 1000 published questions (500 yes, 500 no)" in out
    assert "groups: PC-yes 250, PC-no 250, CP-yes 250, CP-no 250" in out
    assert "images" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--benchmark", "pope", "--data", "."], "did you mean 'pope-"),
        (["--benchmark", "pope-random"], "no data folder for pope-random"),
        (["--benchmark", "pope-random", "--data", "nowhere"], "no folder nowhere"),
        (["--data", "."], "Missing option '--benchmark'"),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("rvelens: ")
    assert says in err
    assert err.count("\n") == 1


@needs_real
def test_the_published_files():
    found = check_files("amber-relation", REAL)
    assert found.truths == {"yes": 975, "no": 689}
    assert found.problems == ()
    assert found.images == 1004
