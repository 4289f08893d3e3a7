"""A command that refuses after it loaded its model leaves no folder that holds no result."""

from __future__ import annotations

import pytest

SCENES = ("--benchmark", "action-scenes", "--limit", "4")
# Mistakes that show only once the model or the questions are known, by command.
REFUSED = {
    "eval": ("eval", "rvelens/tiny", *SCENES, "--method", "rve", "--set", "rve.layers=99"),
    "eval, options": ("eval", "rvelens/tiny", *SCENES, "--method", "rve", "--set", "rve.k=99"),
    "study": (
        "study", "ablation", "--model", "rvelens/tiny", *SCENES, "--set", "rve.layers=99"
    ),
    "study, option": (
        "study", "masking", "--model", "rvelens/tiny", *SCENES, "--option", "n_random=1"
    ),
    "tune": ("tune", "rvelens/tiny", *SCENES, "--share", "1.0"),
    "capture": ("capture", "rvelens/tiny", *SCENES, "--points", "attn.hook_pattern", "--layers", "99"),
    "capture, points": ("capture", "rvelens/tiny", *SCENES, "--points", "hook_nothing"),
    "reproduce": (
        "reproduce", "rvelens/tiny", "--data", ".", "--table", "1", "--set", "rve.layers=99"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_leaves_no_folder(run_command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_command(*REFUSED[name], "--out", "new/run")
    assert code in (1, 2), err
    assert err.strip()
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_what_was_there_stays(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    run_command(*REFUSED["eval"], "--out", "new/run")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "notes.txt"]
