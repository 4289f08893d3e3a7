"""Recent folders as the browser keeps them, and the examples that the tabs open with."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rvelens.app.examples import example_pairs, example_run
from rvelens.app.recent import (
    EXAMPLE,
    chosen_paths,
    nearby_runs,
    read_paths,
    recent_html,
    remember,
)
from rvelens.evaluate.opened import open_run
from rvelens.pairs.review import decide, read_reviewed


def test_the_latest_folder_is_in_front_and_once(tmp_path):
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    kept = remember(remember(remember([], a, "pictures"), b, ""), a, "others")
    assert kept == [(a, "others"), (b, "")]
    assert remember(kept, EXAMPLE, "") == kept
    many = kept
    for n in range(20):
        many = remember(many, str(tmp_path / str(n)), "")
    assert len(many) == 6


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8))
def test_whatever_a_browser_sends_is_read_or_dropped(kept):
    assert all(isinstance(x, str) for pair in read_paths(kept) for x in pair)


def test_buttons_carry_their_paths_escaped():
    html = recent_html([["/a/<b>/${c}", "{{d}}"]], [("/a/near", ""), ("/a/<b>/${c}", "")])
    assert html.count("<button") == 3
    assert "<b>" not in html
    assert "${" not in html
    assert "{{" not in html
    assert ">a/near<" in html
    assert chosen_paths(json.dumps(["x", "y"])) == ("x", "y")


def test_runs_near_the_page_are_offered(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert nearby_runs() == [(str(tmp_path / "run"), "")]


def test_the_example_is_a_run_that_is_made_once(models, tmp_path):
    run = open_run(str(example_run(models, tmp_path)))
    assert run.methods == ["vanilla", "rve", "vaf"]
    assert len(run.items["action-scenes"]) == 40
    written = (tmp_path / "run/report.json").stat().st_mtime_ns
    example_run(models, tmp_path)
    assert (tmp_path / "run/report.json").stat().st_mtime_ns == written


def test_each_window_has_example_pairs_of_its_own(tmp_path):
    first, second = example_pairs(tmp_path / "new"), example_pairs(tmp_path / "new")
    decide(str(first), "scene 0", "accept", None)
    assert [read_reviewed(str(file))[0]["decision"] for file in (first, second)] == [
        "accepted",
        None,
    ]
    assert (first.parent / read_reviewed(str(first))[0]["image"]).is_file()
