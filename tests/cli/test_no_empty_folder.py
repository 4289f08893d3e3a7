"""A command that refuses after it loaded its model leaves no folder that holds no result."""

from __future__ import annotations

import os

import pytest

from rvelens.files.paths import remove_if_refused

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


def test_what_others_put_beside_a_refused_folder_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse():
        with remove_if_refused("runs/a"):
            (tmp_path / "runs" / "a").mkdir(parents=True)
            (tmp_path / "runs" / "a" / "manifest.json").write_text("{}")
            (tmp_path / "runs" / "mine").mkdir()
            (tmp_path / "runs" / "mine" / "uv.lock").write_text("precious")
            (tmp_path / "other" / "runs" / "a").mkdir(parents=True)
            os.chdir(tmp_path / "other")
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["other", "other/runs", "other/runs/a", "runs", "runs/mine", "runs/mine/uv.lock"]


def test_what_was_there_stays(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    run_command(*REFUSED["eval"], "--out", "new/run")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "notes.txt"]
