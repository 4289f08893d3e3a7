"""The example scripts run, and print what the library's own calls give."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from rvelens import ARSProfile, HookedLVLM, score_heads
from rvelens.benchmarks import load_benchmark
from rvelens.benchmarks.action_scenes import contrastive_pairs, make_questions
from rvelens.benchmarks.rules import strict
from rvelens.evaluate import Answer, answer, score
from rvelens.hooks import rve_hooks
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY
from rvelens.model.yes_no import yes_no_probabilities

FOLDER = Path(__file__).parents[2] / "examples"
# check_smollm.py is tested in tests/check.
NAMES = ("ask", "scan_heads", "ablate_heads", "evaluate", "custom_hook")
NUMBER = re.compile(r"-?\d+\.\d+")


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(capsys):
    def run(name, *argv):
        load(name).main([str(word) for word in argv])
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained("rvelens/tiny")


@pytest.fixture(scope="module")
def shipped():
    return ARSProfile.load(TINY / "profile.safetensors")


def numbers(line):
    return [float(number) for number in NUMBER.findall(line)]


def test_ask(run, tiny, shipped):
    (question,) = make_questions("test", 1)
    hooks = rve_hooks(shipped, "preset", k=5, alpha=0.05, beta=1.0)
    text, *lines = run("ask")
    assert text == question.text
    assert len(lines) == 2
    for line, name, some in zip(lines, ("vanilla", "rve"), ([], hooks), strict=True):
        with torch.no_grad(), tiny.hooks(some):
            (said,) = tiny.ask(question.image, [question.text])
            logits = tiny(**tiny.prepare(question.image, question.text))[:, -1]
        expected = yes_no_probabilities(logits, tiny.processor)[0].tolist()
        assert line.startswith(name)
        assert repr(said) in line
        assert numbers(line) == pytest.approx(expected, abs=6e-4)
    assert numbers(lines[0]) != numbers(lines[1])


def test_ask_about_a_file(run, tmp_path):
    other = make_questions("test", 2)[1]
    other.image.save(tmp_path / "other.png")
    drawn = run("ask")
    text, *lines = run("ask", "--image", tmp_path / "other.png", "--question", other.text)
    assert text == other.text
    assert lines != drawn[1:]
    # The authors' ranking is of 32 layers: `make_method` says so, and not the script.
    with pytest.raises(ValueError, match="32 layers x 32 heads for a model of 6 x 12"):
        run("ask", "--profile", "published")


def test_scan_heads(run, tiny, tmp_path):
    first, *lines, last = run(
        "scan_heads", "-n", 3, "--out", tmp_path / "p.safetensors", "--heatmap", tmp_path / "p.png"
    )
    expected = score_heads(tiny, contrastive_pairs("validation", 3))
    assert "3 pairs" in first
    assert len(lines) == tiny.n_layers
    for layer, line in enumerate(lines):
        scores, top = expected.scores[layer].numpy(), expected.top(layer, 3)
        assert numbers(line) == pytest.approx([scores.mean(), *scores[top]], abs=6e-4)
        assert [int(head) for head in re.findall(r"head (\d+)", line)] == top
    assert last.endswith(str(expected.auto_layers()))
    assert torch.equal(ARSProfile.load(tmp_path / "p.safetensors").ranking, expected.ranking)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_scan_heads_from_a_file(run, tmp_path):
    pairs = contrastive_pairs("validation", 2)
    rows = []
    for n, pair in enumerate(pairs):
        pair.image.save(tmp_path / f"{n}.png")
        rows.append(
            f'{{"image": "{n}.png", "question": "{pair.question}", '
            f'"contrastive": "{pair.contrastive}"}}'
        )
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    out = ("--out", tmp_path / "p.safetensors")
    given = run("scan_heads", "--pairs", tmp_path / "pairs.jsonl", "--images", tmp_path, *out)
    assert given == run("scan_heads", "-n", 2, *out)


def test_ablate_heads(run, tiny, shipped):
    asked = make_questions("test", 12)
    first, *lines = run("ablate_heads", "-n", 12, "-k", 6, "--layers", "1-3")
    assert first.startswith("6 heads in each of layers [1, 2, 3], 12 questions")
    assert [line.split()[0] for line in lines] == ["none", "sensitive", "insensitive", "random"]
    shown = {}
    for name, heads in (
        ("none", None),
        ("sensitive", shipped.top),
        ("insensitive", shipped.bottom),
    ):

        def without(z, hook, heads=heads):
            z = z.clone()
            z[:, :, heads(int(hook.name.split(".")[1]), 6) if heads else []] = 0
            return z

        with tiny.hooks([(f"blocks.{layer}.attn.hook_z", without) for layer in (1, 2, 3)]):
            said = tiny.ask([q.image for q in asked], [q.text for q in asked])
        shown[name] = np.mean([strict(s) == q.answer for s, q in zip(said, asked, strict=True)])
    for line in lines[:3]:
        value, low, high = numbers(line)
        assert value == pytest.approx(shown[line.split()[0]], abs=6e-4)
        assert low <= value <= high
    assert len(set(shown.values())) > 1


def test_evaluate(run, tiny, shipped, tmp_path):
    first, *lines, last = run("evaluate", "-n", 12, "--out", tmp_path, "--method", "vanilla", "pai")
    benchmark = load_benchmark("action-scenes", limit=12)
    assert first == "action-scenes, 12 questions, official rule"
    images = {item.image: item.load() for item in benchmark.items}
    texts = [item.text for item in benchmark.items]
    names = [item.image for item in benchmark.items]
    answers = {}
    for name in ("vanilla", "pai"):
        method = make_method(name, tiny, shipped)
        said = answer(tiny, method, [images[n] for n in names], texts, names)
        asked = zip(benchmark.items, said, strict=True)
        answers[name] = {item.id: Answer(item.id, *one) for item, one in asked}
    expected = score(benchmark, answers)["rules"]["official"]
    for line, (name, figures) in zip(lines, expected["methods"].items(), strict=True):
        accuracy = figures["accuracy"]
        wanted = [
            accuracy["value"],
            accuracy["low"],
            accuracy["high"],
            figures["yes_ratio"]["value"],
        ]
        assert line.startswith(name)
        assert numbers(line) == pytest.approx(wanted, abs=6e-4)
    assert last == f"pai against vanilla: {expected['pairs'][0]['verdict']}"
    again = run("evaluate", "-n", 12, "--out", tmp_path, "--method", "vanilla", "pai")
    assert again == [first, *lines, last]


@torch.no_grad()
def test_custom_hook(run, tiny):
    lines = run("custom_hook", "-n", 8, "--layers", "3", "--sharpen", 1, 3)
    asked = make_questions("test", 8)
    images, texts = [q.image for q in asked], [q.text for q in asked]
    inputs = tiny.prepare(images, texts)
    image, seen = tiny.token_map(inputs).image, []

    def threefold(scores, hook):
        scores = scores.clone()
        for sample, keys in enumerate(image):
            scores[sample, :, :, : len(keys)][..., keys] *= 3
        return scores

    def look(pattern, hook):
        seen.append(pattern[:, :, 0, : image.shape[1]] * image[:, None])

    for line, edit in zip(
        lines, ([], [("blocks.3.attn.hook_attn_scores", threefold)]), strict=True
    ):
        with tiny.hooks([*edit, ("blocks.3.attn.hook_pattern", look)]):
            seen.clear()
            tiny(**inputs)
            share = float(seen[0].sum(-1).mean())
            said = tiny.ask(images, texts)
        right = np.mean([strict(s) == q.answer for s, q in zip(said, asked, strict=True)])
        assert numbers(line) == pytest.approx([share, right], abs=6e-4)
    assert numbers(lines[0])[0] != numbers(lines[1])[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_docstring_are_ones_it_takes(name, capsys):
    module = load(name)
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
    text = (module.__doc__ or "").replace("\\\n", " ")
    commands = re.findall(rf"^    python examples/{name}\.py(.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    with pytest.raises(SystemExit):
        module.main(["--help"])
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
    assert {"--model", "--device-map"} <= known
    for command in commands:
        assert {word for word in shlex.split(command) if word.startswith("-")} <= known
