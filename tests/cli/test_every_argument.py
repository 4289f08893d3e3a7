"""One mistake in every argument of every command: one sentence, exit code 2, before a model loads."""

from __future__ import annotations

import enum
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rvelens import ARSProfile
from rvelens.app import models as app_models
from rvelens.cli import COMMANDS, _imported, main
from rvelens.model import loading

QUESTION = "does a man hold a bat in the image ?"
PROFILE = ("--profile", "p.safetensors")
# A command line without a mistake, by command; the explorer and the bench end where they would start.
WHOLE = {
    "demo": ("demo",),
    "ask": ("ask", "model", "1.png", QUESTION, *PROFILE),
    "scan": ("scan", "model", "--pairs", "pairs.jsonl", "--images", ".", "-o", "new.safetensors"),
    "eval": (
        "eval", "model", "--benchmark", "action-scenes", "--method", "rve", "--out", "run", *PROFILE
    ),
    "capture": (
        "capture", "model", "--points", "hook_resid_post", "--benchmark", "action-scenes",
        "--limit", "2", "--out", "run",
    ),
    "check": ("check", "model", "--image", "1.png"),
    "study": ("study", "main-table", "--out", "study", *PROFILE, "--model", "model"),
    "reproduce": (
        "reproduce", "model", "--out", "new", "--figure", "5", "--pairs", "pairs.jsonl",
        "--images", ".", *PROFILE,
    ),
    "tune": ("tune", "model", "--out", "tuned", *PROFILE),
    "judge": ("judge", "answers.jsonl", "--model", "m"),
    "pairs make": ("pairs", "make", "pairs.jsonl", "--images", ".", "-o", "made.jsonl"),
    "pairs review": ("pairs", "review", "pairs.jsonl"),
    "data check": ("data", "check", "--benchmark", "action-scenes"),
    "convert sharegpt4v": ("convert", "sharegpt4v", "checkpoint", "converted"),
    "app": ("app", "model", *PROFILE),
    "families": ("families",),
    "bench": ("bench",),
}  # fmt: skip
# Mistakes by the type of an argument: of the wrong type, beyond every range, or not there.
MISTAKES = {
    int: ("two", "1.5", "-1", "nan"),
    float: ("two", "nan", "-1", "inf"),
    Path: ("nowhere/[/b]/none.x", "1.png/below", ""),
    str: ("[/b] none", ""),
    enum.Enum: ("none", ""),
    bool: ("maybe",),
}
# Any text is right for these: what a person asks, says or names on another machine.
TEXTS = {
    ("ask", "question"), ("check", "question"),
    ("ask", "suffix"), ("scan", "suffix"), ("eval", "suffix"), ("study", "suffix"),
    ("reproduce", "suffix"), ("tune", "suffix"), ("capture", "suffix"), ("judge", "model"),
    ("pairs make", "model"),
}  # fmt: skip
# Right values that look like mistakes, or folders that are made.
RIGHT = {
    ("judge", "cache", "nowhere/[/b]/none.x"), ("pairs make", "cache", "nowhere/[/b]/none.x"),
    ("eval", "output", "nowhere/[/b]/none.x"), ("study", "output", "nowhere/[/b]/none.x"),
    ("tune", "output", "nowhere/[/b]/none.x"), ("capture", "output", "nowhere/[/b]/none.x"),
    ("demo", "save", "nowhere/[/b]/none.x"),
    ("ask", "save_manifest", "nowhere/[/b]/none.x"),
    ("reproduce", "output", "nowhere/[/b]/none.x"),
}  # fmt: skip


class ReachedError(Exception):
    """The command went on to what only a right command line should reach."""


def parameters():
    """Every argument of every command: its command, its name, its option and its type."""
    for name in COMMANDS:
        command = _imported(name)
        below = getattr(command, "commands", None)
        every = {f"{name} {sub}": each for sub, each in below.items()} if below else {name: command}
        for words, found in every.items():
            for parameter in found.params:
                if parameter.name != "help":
                    yield words, parameter


def kind_of(parameter):
    annotation = parameter.type_descriptor.annotation
    inner = (getattr(annotation, "__args__", None) or (annotation,))[0]
    return next((kind for kind in MISTAKES if kind is inner), None) or next(
        kind for kind in (enum.Enum,) if issubclass(inner, kind)
    )


def cases():
    for command, parameter in parameters():
        if (command, parameter.name) in TEXTS:
            continue
        for value in MISTAKES[kind_of(parameter)]:
            if (command, parameter.name, value) not in RIGHT:
                yield command, parameter, value


def with_mistake(command, parameter, value):
    words = list(WHOLE[command])
    option = next((o for o in parameter.opts if o.startswith("--")), None)
    if option is None:  # by its place, behind the command's own words
        place = [p.name for p in arguments(command)].index(parameter.name)
        start = len(command.split())
        words[start + place : start + place + 1] = [value]
        return words
    if kind_of(parameter) is bool:
        return [*words, f"{option}={value}"]
    return [*words, option, value]


def arguments(command):
    return [p for c, p in parameters() if c == command and not p.opts[0].startswith("-")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    for name in ("model", "checkpoint"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    Image.new("RGB", (32, 32)).save(folder / "1.png")
    ARSProfile.from_scores(torch.rand(3, 8)).save(folder / "p.safetensors")
    row = {"id": "a", "image": "1.png", "question": QUESTION, "answer": "kick", "reference": "kick"}
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n")
    del row["reference"]
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run in the folder; what would be loaded, measured or sent is `ReachedError`."""

    def reached(*arguments, **options):
        raise ReachedError

    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    for name in ("OPENAI_BASE_URL", "RVELENS_JUDGE_MODEL", "RVELENS_PAIRS_MODEL", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(loading, "load_model", reached)
    monkeypatch.setattr(app_models, "load_model", reached)
    monkeypatch.setattr("rvelens.check.run.load_parts", reached)
    monkeypatch.setattr("rvelens.speed.generation.build_random", reached)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(words):
        with pytest.raises((SystemExit, ReachedError)) as end:
            main(list(words))
        said = capsys.readouterr()
        return getattr(end.value, "code", "reached"), said.out, said.err

    return run


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "ask",
        "scan",
        "eval",
        "capture",
        "check",
        "study",
        "reproduce",
        "tune",
        "app",
        "bench",
    ],
)
def test_without_a_mistake_the_model_is_reached(run, command):
    code, _, err = run(WHOLE[command])
    assert code == "reached", err


@pytest.mark.parametrize(
    ("command", "parameter", "value"),
    [pytest.param(*case, id=f"{case[0]} {case[1].name} {case[2]!r}") for case in cases()],
)
def test_a_mistake_is_one_sentence(run, folder, command, parameter, value):
    before = sorted(folder.rglob("*"))
    code, out, err = run(with_mistake(command, parameter, value))
    assert sorted(folder.rglob("*")) == before  # a refused command leaves nothing behind
    assert (code, out) == (2, ""), err
    lines = [line for line in err.splitlines() if "pairs: expected" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("rvelens: ")
    assert "Traceback" not in err
