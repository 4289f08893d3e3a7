"""`rvelens tune` and what `rvelens eval --tuned` makes of its result."""

from __future__ import annotations

import json

import pytest

EVAL = ("eval", "rvelens/tiny", "--benchmark", "action-scenes", "--out", "run", "--tuned", "tuned")


@pytest.fixture
def run(run_command):
    return run_command


def test_tuned_on_some_and_refused_on_them(run, tmp_path):
    tune = ("tune", "rvelens/tiny", "--out", "tuned", "--limit", "20", "--share", "0.5")
    code, out, err = run(*tune, "--by", "accuracy")
    assert code == 0, err
    assert "10 test questions" in out
    found = json.loads((tmp_path / "tuned" / "tune.json").read_text())["models"][0]["measured"]
    assert len(found["tuned"]["photographs"]) == 10
    assert found["tuned"]["by"] == "accuracy"
    assert (tmp_path / "tuned" / "tune-search.csv").exists()
    code, _, err = run(*EVAL, "--method", "vanilla", "rve", "--limit", "20")
    assert code == 2
    assert "10 of 20 questions of action-scenes are about photographs that RVE was tuned on" in err
    code, _, err = run(*EVAL, "--method", "vanilla")
    assert "--tuned without the method rve: expected rve among" in err


def test_eval_takes_what_was_tuned(run, tmp_path):
    shipped = "4ba5f2f06e1e0bd1"
    setting = {"layers": [4, 5], "k": 2, "alpha": 0.3, "beta": 0.5, "scope": "all", "denoise": True}
    tuned = {
        "format": "rvelens-tuned-1", "setting": setting, "by": "auc", "model": "rvelens/tiny",
        "profile": shipped, "benchmark": "other", "photographs": ["elsewhere"],
    }  # fmt: skip
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "tune.json").write_text(json.dumps(tuned))
    ask = (*EVAL, "--method", "rve", "--limit", "8", "--set", "rve.beta=2.0")
    code, _, err = run(*ask)
    assert code == 2
    assert "settings tuned for the head profile" in err
    tuned["profile"] = err.split("and this is ")[1].split(":")[0]
    (folder / "tune.json").write_text(json.dumps(tuned))
    code, _, err = run(*ask)
    assert code == 0, err
    made = json.loads((tmp_path / "run/action-scenes/rve/manifest.json").read_text())
    used = made["method"]["parameters"]
    assert (used["layers"], used["k"], used["alpha"], used["beta"]) == ("4-5", 2, 0.3, 2.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tune", "rvelens/tiny"), "Missing option"),
        (("tune", "rvelens/tiny", "-o", "x", "--by", "luck"), "tuning by 'luck'"),
        (("tune", "rvelens/tiny", "-o", "x", "--share", "1.5"), "--share"),
        (("tune", "rvelens/tiny", "-o", "x", "--benchmark", "pope"), "benchmark 'pope': expected"),
        (("tune", "none", "-o", "x"), "no head profile for none"),
        ((*EVAL, "--method", "rve"), "expected the tune.json that"),
    ],
)
def test_mistakes(run, arguments, says):
    code, out, err = run(*arguments)
    assert code == 2
    assert says in err
    assert not out
