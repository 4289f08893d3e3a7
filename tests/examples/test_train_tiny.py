"""The training script of the embedded model runs end to end, resumes, and repeats itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks.action_scenes import make_questions

SCRIPT = Path(__file__).parents[2] / "examples" / "train_tiny.py"
STAGES = ("vision", "clear", "hard", "skewed", "prior")
SMALL = [f"--{stage}-steps=2" for stage in STAGES] + [
    "--batch=2", "--vision-batch=2", "--pairs=2", "--questions=8", "--eager",
]  # fmt: skip


def train(out, *more):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--out={out}", *SMALL, *more],
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


def test_the_recipe_of_the_test_bed(tmp_path):
    train(tmp_path / "a", "--recipe=parts", "--seed=56", "--first-scene=7")
    config = json.loads((tmp_path / "a" / "model" / "config.json").read_text())["text_config"]
    assert (config["num_attention_heads"], config["head_dim"]) == (16, 16)
    profile = ARSProfile.load(tmp_path / "a" / "model" / "profile.safetensors")
    assert profile.about["model"] == "parts-56"
    made = json.loads((tmp_path / "a" / "training.json").read_text())
    assert (made["first_scene"], made["hard_steps"], made["seed"]) == (7, 2, 56)


def test_a_seed_whose_scenes_are_another_stages_is_refused():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out=a", "--seed=145"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--seed 145: expected 55 to 144, whose scenes are apart." in done.stderr
