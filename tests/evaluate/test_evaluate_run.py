"""A run is scored, continued after `kill -9`, refused where its settings changed, and shared out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import Decoding, evaluate, to_markdown
from rvelens.evaluate.manifest import differences
from rvelens.evaluate.run import notes
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY, HookedLVLM
from rvelens.model.weights import weights_digest

COMMAND = [
    "eval", "rvelens/tiny", "--benchmark", "action-scenes", "--limit", "40",
    "--method", "vanilla", "rve", "vcd", "--batch-size", "4", "--max-new-tokens", "3", "--json",
]  # fmt: skip
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", limit=10)


def run(model, benchmark, out, **changes):
    settings = {"methods": [make_method("vanilla", model), make_method("vcd", model)]} | changes
    methods = settings.pop("methods")
    options = {"decoding": Decoding(max_new_tokens=3), "batch_size": 4} | settings
    return evaluate(model, [benchmark], methods, out, **options)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.json*"))}


def test_a_run_and_the_same_run_again(tiny, scenes, tmp_path):
    report = run(tiny, scenes, tmp_path)
    before = files(tmp_path)
    assert sorted(before) == [
        "action-scenes/vanilla/answers.jsonl", "action-scenes/vanilla/manifest.json",
        "action-scenes/vcd/answers.jsonl", "action-scenes/vcd/manifest.json", "report.json",
    ]  # fmt: skip
    assert json.loads(before["report.json"]) == report
    figures = report["benchmarks"]["action-scenes"]["rules"]["official"]["methods"]
    rows = [json.loads(x) for x in before["action-scenes/vanilla/answers.jsonl"].splitlines()]
    right = [row["answer"].casefold() == row["truth"] for row in rows]
    assert figures["vanilla"]["accuracy"]["value"] == sum(right) / 10
    assert run(tiny, scenes, tmp_path) == report
    assert files(tmp_path) == before
    assert "| vcd |" in to_markdown(report)


def test_a_run_of_other_settings_is_refused_with_the_difference(tiny, scenes, tmp_path):
    run(tiny, scenes, tmp_path)
    with pytest.raises(ValueError, match=r"decoding\.max_new_tokens was 3 and is 5"):
        run(tiny, scenes, tmp_path, decoding=Decoding(max_new_tokens=5))
    changed = [make_method("vanilla", tiny), make_method("vcd", tiny, step=400)]
    with pytest.raises(ValueError, match=r"vcd with other parameters \(step was 500 and is 400"):
        run(tiny, scenes, tmp_path, methods=changed)
    fewer = scenes.keep(scenes.items[:-1])
    with pytest.raises(ValueError, match=r"benchmark\.questions was 10 and is 9"):
        run(tiny, fewer, tmp_path)
    edited = scenes.keep([replace(scenes.items[0], text="Does it?"), *scenes.items[1:]])
    with pytest.raises(ValueError, match=r"benchmark\.items was [0-9a-f]{12}\.\.\. and is"):
        run(tiny, edited, tmp_path)
    (tmp_path / "action-scenes" / "vanilla" / "manifest.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"manifest\.json is not JSON \(.*expected the manifest of a run"
    ):
        run(tiny, scenes, tmp_path)


def test_killed_between_two_methods_of_a_group(tiny, scenes, tmp_path):
    """Fewer settings side by side round otherwise, and the files would not be the same."""
    methods = [make_method(name, tiny) for name in ("vanilla", "pai", "devils")]
    run(tiny, scenes, tmp_path, methods=methods)
    before = files(tmp_path)
    for name, lost in (("pai", 4), ("devils", 6)):
        path = tmp_path / "action-scenes" / name / "answers.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-lost]) + lines[-lost][:9])
    run(tiny, scenes, tmp_path, methods=methods)
    assert files(tmp_path) == before


def test_images_that_came_later_are_asked_about(tiny, scenes, tmp_path):
    def missing():
        raise ValueError("no image yet")

    late = [replace(scenes.items[0], load=missing), *scenes.items[1:]]
    first = run(tiny, scenes.keep(late), tmp_path)
    assert first["benchmarks"]["action-scenes"]["left_out"] == 1
    assert first["input"]["action-scenes"]["unreadable"] == ["no image yet"]
    run(tiny, scenes.keep(late), tmp_path)
    path = tmp_path / "action-scenes" / "vcd" / "answers.jsonl"
    assert len(path.read_text().splitlines()) == 10
    then = run(tiny, scenes, tmp_path)
    assert then["benchmarks"] == run(tiny, scenes, tmp_path / "other")["benchmarks"]
    nothing = [replace(item, load=missing) for item in scenes.items]
    empty = run(tiny, scenes.keep(nothing), tmp_path / "nothing")
    assert "no question could be asked" in to_markdown(empty)


def test_a_folder_that_another_run_writes_is_refused(tiny, scenes, tmp_path):
    run(tiny, scenes, tmp_path)
    folder = tmp_path / "action-scenes" / "vanilla"
    with (
        FileLock(folder / "answers.lock"),
        pytest.raises(ValueError, match="is being written by another run"),
    ):
        run(tiny, scenes, tmp_path)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds answers without a manifest"):
        run(tiny, scenes, tmp_path)


def test_the_suffix_is_asked_and_kept(tiny, scenes, tmp_path):
    suffix = "Please answer this question with one word."
    assert Decoding(suffix=suffix).question(scenes.items[0]) == f"{scenes.items[0].text} {suffix}"
    plain = run(tiny, scenes, tmp_path / "a")
    asked = run(tiny, scenes, tmp_path / "b", decoding=Decoding(suffix=suffix, max_new_tokens=3))
    (a, b) = (answers(tmp_path / name) for name in "ab")
    assert a.keys() == b.keys()
    assert any(a[key]["margin"] != b[key]["margin"] for key in a)
    assert "no suffix" in to_markdown(plain)
    assert suffix in to_markdown(asked)


def test_open_questions_get_longer_answers(scenes):
    assert Decoding().settled(scenes.items).max_new_tokens == 16
    opened = [replace(item, truth=None, reference="r") for item in scenes.items]
    assert Decoding().settled(opened).max_new_tokens == 64
    assert Decoding(max_new_tokens=5).settled(opened).max_new_tokens == 5


def test_the_report_says_what_a_prompt_without_a_system_text_does(tiny):
    vanilla, vaf, vcd = (make_method(name, tiny) for name in ("vanilla", "vaf", "vcd"))
    assert notes(tiny, [vanilla], "chat") == []
    assert "This prompt has 2 tokens before its image" in notes(tiny, [vaf], "chat")[0]
    assert notes(tiny, [vaf], "llava_v1") == []
    assert "before the cutoff" in notes(tiny, [vcd], "chat")[0]


def test_one_changed_weight_changes_the_digest(model):
    before = weights_digest(model)
    assert weights_digest(model) == before
    weight = model.hf_model.model.language_model.layers[1].mlp.up_proj.weight
    weight.data[3, 5] += 1e-4
    assert weights_digest(model) != before


def test_differences_name_every_leaf():
    there = {"a": {"b": 1, "c": [1, 2]}, "d": "x"}
    here = {"a": {"b": 2, "c": [1, 2]}, "e": "x" * 100}
    found = list(differences(there, here))
    assert found[:2] == ["a.b was 1 and is 2", 'd was "x" and is null']
    assert found[2].startswith("e was null and is")
    assert len(found[2]) < 90
    # Of long texts, what differs, however late.
    one, other = (
        "A chat. " * 12 + f"{end} {{question}} " + "y" * 30 for end in ("USER:", "HUMAN:")
    )
    (said,) = differences({"prompt": one}, {"prompt": other})
    assert "USER: {question}" in said
    assert "HUMAN: {question}" in said
    assert said.startswith("prompt was ...")
    (said,) = differences({"prompt": "z" * 80}, {"prompt": "z" * 90})
    assert said == f'prompt was ...{"z" * 53}" and is ...{"z" * 53}"'


def test_nothing_to_run(tiny, scenes, tmp_path):
    with pytest.raises(ValueError, match="0 benchmarks, 1 method, batch_size=8: expected at least"):
        evaluate(tiny, [], [make_method("vanilla", tiny)], tmp_path)


def start(out, *launcher):
    command = [sys.executable, *launcher, "-m", "rvelens", *COMMAND, "--out", str(out)]
    return subprocess.Popen(
        command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, and its report."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(start(folder))


def answers(folder):
    """Answers by method and question, from however many files."""
    found = {}
    for path in Path(folder).rglob("answers*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found[path.parent.name, row["id"]] = row
    return found


def test_killed_in_the_middle_and_taken_up_again(whole, tmp_path):
    """SIGKILL as soon as answers of RVE are there: same report, same answers."""
    folder, report = whole
    process = start(tmp_path)
    watched = tmp_path / "action-scenes" / "rve" / "answers.jsonl"
    deadline = time.monotonic() + 200
    while not (watched.exists() and watched.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < len(answers(tmp_path)) < 80  # vanilla and rve run side by side, vcd after them
    with watched.open("ab") as file:
        file.write(b'{"id": "test-')  # as if it had been killed while it wrote
    assert finish(start(tmp_path)) == report
    assert files(tmp_path) == files(folder)


ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
              "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no",
              "--main_process_port=0"]  # fmt: skip
# Port 0 takes a free one, so that runs beside this one do not meet it.
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d",
            "--rdzv-endpoint=127.0.0.1:0"]  # fmt: skip


@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN], ids=["accelerate", "torchrun"])
def test_two_processes_give_what_one_gives(whole, tmp_path, launcher):
    """Both commands of the page on scaling start two processes, which share the questions."""
    folder, report = whole
    assert finish(start(tmp_path, *launcher)) == report
    assert answers(tmp_path) == answers(folder)
    assert (tmp_path / "action-scenes" / "vcd" / "answers-1.jsonl").stat().st_size
