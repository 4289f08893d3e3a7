"""lmms-eval's own command runs methods on a task of ours and finds what `rvelens.evaluate` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import Decoding, evaluate
from rvelens.interventions.methods import make_method
from rvelens.lmms import TASKS
from rvelens.model.hooked_lvlm import TINY

pytest.importorskip(
    "lmms_eval",
    reason="lmms-eval is not installed; see requirements-lmms.txt",
    exc_type=ImportError,
)
N = 40
METHODS = {"vanilla": "", "rve": ',method.alpha=0.1,method_args={"k": 1}', "vcd": ",seed=7"}
PARAMETERS = {"vanilla": {}, "rve": {"alpha": 0.1, "k": 1}, "vcd": {}}
# A process of its own: the evaluator changes locks, seeds and logging of the one it runs in.
# Its command does the same after it has read a thousand tasks that are not asked for.
PROGRAM = """
import json, sys
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
folder, *many = sys.argv[1:]
manager = TaskManager(include_path=folder, include_defaults=False)
found = [
    simple_evaluate(
        model="rvelens", model_args=model_args, tasks=["scenes"], batch_size="6", task_manager=manager
    )
    for model_args in many
]
kept = [{"results": one["results"]["scenes"], "samples": one["samples"]["scenes"]} for one in found]
print("\\n" + json.dumps(kept, default=str))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results and samples by method, as lmms-eval reports them."""
    folder = tmp_path_factory.mktemp("lmms")
    task = {"include": str(TASKS / "rvelens_action_scenes.yaml"), "task": "scenes"}
    text = yaml.safe_dump({**task, "dataset_kwargs": {"n": N}})
    (folder / "scenes.yaml").write_text(text, encoding="utf-8")
    many = [f"pretrained=rvelens/tiny,prompt=chat,method={m}{more}" for m, more in METHODS.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *many],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads(done.stdout.splitlines()[-1])
    return {m: (one["results"], one["samples"]) for m, one in zip(METHODS, kept, strict=True)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The same from `rvelens.evaluate`: its report, and each answer by question."""
    model, out = HookedLVLM.from_pretrained(TINY), tmp_path_factory.mktemp("evaluate")
    benchmark = load_benchmark("action-scenes", n=N)
    profile = ARSProfile.load(TINY / "profile.safetensors")
    answers = {}
    reports = {}
    for name, parameters in PARAMETERS.items():
        method = make_method(name, model, profile, **parameters)
        seed = 7 if name == "vcd" else 55
        report = evaluate(
            model, [benchmark], [method], out / name, decoding=Decoding(seed=seed), batch_size=6
        )
        reports[name] = report["benchmarks"]["action-scenes"]["rules"]["official"]["methods"][name]
        lines = (out / name / "action-scenes" / name / "answers.jsonl").read_text().splitlines()
        answers[name] = {row["id"]: row["answer"] for row in map(json.loads, lines)}
    return reports, answers


@pytest.mark.parametrize("method", METHODS)
def test_the_figures_are_those_of_evaluate(found, expected, method):
    (figures, _), report = found[method], expected[0][method]
    for name in ("accuracy", "f1", "precision", "recall", "yes_ratio"):
        assert figures[f"{name},none"] == pytest.approx(report[name]["value"], abs=1e-6)
    assert figures["unparsed,none"] == report["unparsed"] / N
    assert 0 < figures["accuracy_stderr_clt,none"] < 0.1
    assert "f1_no,none" not in figures


@pytest.mark.parametrize("method", METHODS)
def test_every_answer_is_that_of_evaluate(found, expected, method):
    said = {row["accuracy"]["id"]: row["accuracy"]["answer"] for row in found[method][1]}
    assert said == expected[1][method]


def test_the_methods_differ(found):
    said = [[row["accuracy"]["answer"] for row in samples] for _, samples in found.values()]
    assert said[0] != said[1]
