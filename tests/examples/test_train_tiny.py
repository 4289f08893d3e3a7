"""The training script of the embedded model runs end to end, resumes, and repeats itself."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks.action_scenes import draw_scene, make_questions

SCRIPT = Path(__file__).parents[2] / "examples" / "train_tiny.py"
STAGES = ("vision", "clear", "hard", "skewed", "prior")
SMALL = [f"--{stage}-steps=2" for stage in STAGES] + [
    "--batch=2", "--vision-batch=2", "--pairs=2", "--questions=8", "--eager",
]  # fmt: skip


def train(out):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--out={out}", *SMALL],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("finished")
    return load_file(out / "model" / "model.safetensors")


def test_from_nothing_to_a_model_that_answers(tmp_path):
    weights = train(tmp_path / "a")
    assert all((tmp_path / "a" / f"{stage}.pt").exists() for stage in STAGES)
    made = json.loads((tmp_path / "a" / "training.json").read_text())
    assert made["prior_steps"] == 2
    model = HookedLVLM.from_pretrained(tmp_path / "a" / "model")
    question = make_questions("test", 1)[0]
    assert len(model.ask(question.image, question.text)) == 1
    profile = ARSProfile.load(tmp_path / "a" / "model" / "profile.safetensors")
    assert profile.scores.shape == (model.n_layers, model.n_heads)

    # Interrupted after the third stage and taken up again, elsewhere: the same weights.
    (tmp_path / "b").mkdir()
    for stage in STAGES[:3]:
        (tmp_path / "a" / f"{stage}.pt").rename(tmp_path / "b" / f"{stage}.pt")
    again = train(tmp_path / "b")
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_recipe_of_the_test_bed():
    script = runpy.run_path(str(SCRIPT))
    recipe = script["RECIPES"]["parts"]
    text = script["make_model"](script["make_processor"](), recipe.n_heads).config.text_config
    assert (text.num_attention_heads, text.head_dim) == (16, 16)
    # No label of the relation is left, and the others are as in the first recipe.
    every = script["LABELS"]
    labels = [name for name in every if name[0] in recipe.labels]
    assert {name[0] for name in every} - {name[0] for name in labels} == {"contact", "holds"}
    scene = draw_scene(0, "train")
    known = [every.index(name) for name in labels]
    shown = script["patch_labels"](scene, labels)
    assert shown.any(axis=0).sum() > 5
    assert (shown == script["patch_labels"](scene, every)[:, known]).all()


def test_mistakes_are_refused_before_the_work(tmp_path, monkeypatch, capsys):
    script = runpy.run_path(str(SCRIPT))["main"]
    (tmp_path / "settings.json").write_text('{"seed": 56}')
    for option, says in {
        "--seed=145": "--seed 145: expected 55 to 144, whose scenes are apart.",
        "--first-scene=-5": "--first-scene -5: expected at least 0.",
        "--questions=0": "--questions 0: expected at least 1.",
        "--batch=16": "holds stages made with other settings: name another folder.",
    }.items():
        monkeypatch.setattr(sys, "argv", ["train_tiny.py", f"--out={tmp_path}", option])
        with pytest.raises(SystemExit) as end:
            script()
        assert end.value.code == 2
        assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
