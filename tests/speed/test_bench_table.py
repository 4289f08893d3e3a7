"""The table of `rvelens bench` is narrow, and README shows the one of docs/bench.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rvelens import speed as bench
from rvelens.cli import main
from rvelens.cli.bench import BENCH_COLUMNS, as_markdown
from rvelens.speed.results import read_result

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "bench.json"


@pytest.fixture
def file(tmp_path):
    """A run with every row that there can be, and numbers as wide as they get."""
    eager = (bench.PLAIN, bench.UNHOOKED, bench.RVE)
    names = (*eager, bench.PLAIN_COMPILED, bench.RVE_COMPILED)
    counts = {
        "kernels": {bench.PLAIN: 1319, bench.UNHOOKED: 1319, bench.RVE: 1506},
        "graph_breaks": dict.fromkeys(eager, 0),
        "uncounted": {},
        "missing": {bench.BRIDGE: "ImportError: [none] of the kind"},
        "ratios": dict.fromkeys(names, 1.0214),
        "quartiles": {name: [1.0101, 1.0312] for name in names},
        "seconds": dict.fromkeys(names, 2.5),
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(KEPT.read_text()), **counts}))
    return path


@pytest.fixture
def show(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main(["bench", *map(str, words)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_a_row_of_the_table_is_a_line_of_80_columns(file, show):
    code, out, _ = show("--show", file)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = r"HookedLVLM \+ RVE +1\.021x +1\.010 to 1\.031 +1506 +1\.142x +0"
    assert any(re.fullmatch(cells, line) for line in lines)
    assert any(
        re.fullmatch(r"HookedLVLM \+ RVE, compiled +1\.021x  1\.010 to 1\.031 *", x) for x in lines
    )
    assert any(re.fullmatch(r"Bridge \+ RVE +- *", x) for x in lines)
    assert "Bridge + RVE was not timed: ImportError: [none] of the kind" in lines
    assert "took 2.500 s, compiled 2.500 s." in " ".join(out.split())


def test_a_kept_run_is_shown_again_in_every_form(file, show):
    assert json.loads(show("--show", file, "--json")[1]) == json.loads(file.read_text())
    assert show("--show", file, "--markdown")[1] == as_markdown(read_result(file)) + "\n"


def test_markdown_has_the_columns_and_rows_of_the_table(file):
    head, marks, *rows = as_markdown(read_result(file)).splitlines()
    assert head == "| " + " | ".join(BENCH_COLUMNS) + " |"
    assert marks == "| --- | --: | --: | --: | --: | --: |"
    assert rows[2] == "| HookedLVLM + RVE | 1.021x | 1.010 to 1.031 | 1506 | 1.142x | 0 |"
    assert len(rows) == 6


def test_the_readme_shows_the_kept_run():
    """Written by `rvelens bench --show docs/bench.json --markdown`."""
    assert as_markdown(read_result(KEPT)) in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[1]", "has no capture, device, "),
        ('{"shape": "tiny"}', "expected what `rvelens bench --json` printed"),
    ],
)
def test_files_that_are_no_run_are_refused(tmp_path, show, text, says):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    code, _, err = show("--show", path)
    assert code == 2
    assert says in " ".join(err.split())
