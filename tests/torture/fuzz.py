"""Files that are read back, changed at random: each is read, or refused in one sentence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rvelens import ARSProfile
from rvelens.evaluate.intervention import Intervention
from rvelens.evaluate.reports import read_report
from rvelens.evaluate.store import load_answers
from rvelens.evaluate.tuned import Tuned
from rvelens.files.atomic import write_json
from rvelens.files.stored import read_run
from rvelens.heads.hub import TINY
from rvelens.judge.endpoint import Reply, cached
from rvelens.judge.open_ended import load_items
from rvelens.model.loading import load_model
from rvelens.pairs.file import read_pair_rows

Area = Callable[[Path, random.Random], tuple[list[str], int]]

MANIFEST: dict[str, Any] = {
    "format": "rvelens-run-2",
    "model": {"name": "m", "family": "llava", "dtype": "float32", "weights": "0" * 64},
    "benchmark": {"name": "pope", "questions": 3},
    "method": {"name": "rve", "parameters": {"layers": "2-5", "k": 3, "alpha": 0.05}},
    "decoding": {
        "prompt": "chat", "suffix": "", "max_new_tokens": 3, "seed": 55, "example": "{question}",
    },
    "versions": {"torch": "2"},
    "answers": ["answers.jsonl"],
}  # fmt: skip
TUNED = {
    "format": "rvelens-tuned-1", "setting": {"k": 3, "alpha": 0.1, "layers": "2-5"}, "by": "auc",
    "model": "m", "profile": "0", "benchmark": "pope", "photographs": ["a.png", "b.png"],
}  # fmt: skip
REPORT: dict[str, Any] = {
    "model": {"name": "m"}, "methods": {"rve": {"k": 3}}, "decoding": {"pope": {"prompt": "chat"}},
    "notes": ["n"], "benchmarks": {"pope": {"rules": {}}},
    "input": {"pope": {"malformed": [], "unreadable": [], "empty": {"rve": 0}}},
}  # fmt: skip
ANSWER = {"id": "1", "question": "q", "reference": "r", "answer": "a", "margin": 0.5, "group": "g"}
REPLY = {"reply": {"text": "t", "finish_reason": "stop"}}
PAIR = {"id": "1", "image": "a.png", "question": "q?", "contrastive": "p?", "decision": None}
ODD = [
    None, True, -1, 0, 10**400, 1.5, "", "x", "\ud800", "[/b]", [], {}, [[]], {"a": {}}, "../x",
    "/etc/passwd", "a\0b", float("nan"), float("inf"), ["x"] * 50,
]  # fmt: skip


def changed(value: Any, draw: random.Random) -> Any:
    """The same JSON with one place changed: another type, a missing key, a deep nest."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [changed(one, draw) if n == place else one for n, one in enumerate(value)]
    return draw.choice(ODD)


def text_of(value: Any, draw: random.Random) -> bytes:
    """The changed JSON as bytes, which may be torn, too deep, or no UTF-8."""
    text = json.dumps(changed(value, draw))
    kind = draw.random()
    if kind < 0.05:
        text = "[" * 100_000
    elif kind < 0.1:
        text = text.replace("{", '{"deep": ' + "[" * 200 + "]" * 200 + ", ", 1)
    elif kind < 0.15:
        text = text[: draw.randrange(len(text) + 1)]
    data = text.encode("utf-8", "surrogatepass")
    if kind > 0.95 and data:
        place = draw.randrange(len(data))
        data = data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
    return data


def survived(read: Callable[[], object]) -> str:
    """What went wrong; "" if it was read, or refused in one sentence."""
    try:
        read()
    except ValueError as error:
        text = str(error)
        return "" if text.strip() and text.count("\n") <= 1 else f"no sentence: {text[:200]!r}"
    except OSError as error:
        return "" if error.filename else f"no file is named: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def reader(
    file: str, good: Any, read: Callable[[Path], object], times: int = 400, lines: bool = False
) -> Area:
    """An area: one file, which is changed at random and read `times` times."""

    def area(folder: Path, draw: random.Random) -> tuple[list[str], int]:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        failures = []
        for number in range(times):
            data = text_of(good, draw)
            path.write_bytes(data + b"\n" if lines else data)
            if what := survived(partial(read, folder)):
                failures.append(f"{number}: {what}: {data[:120]!r}")
        return failures, times

    return area


def answers(folder: Path) -> object:
    """Answers of a run whose manifest is whole."""
    write_json(folder / "pope" / "rve" / "manifest.json", MANIFEST)
    return load_answers(folder, "pope", "rve")


def kept_reply(folder: Path) -> Reply | str:
    """A cached reply; a damaged one is asked for again."""
    return cached(folder / "reply.json", lambda: Reply("asked", "stop"))


def profiles(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Head profiles with changed tensors and a changed `about`."""
    failures, path, times = [], folder / "p.safetensors", 300
    shapes = [(3, 4), (4, 3), (1, 3, 4), (2, 1, 3, 4), (12,), (0, 4), (3, 0), ()]
    for number in range(times):
        ranking = torch.stack([torch.randperm(4) for _ in range(3)])
        tensors = {"ranking": ranking, "mean": torch.rand(3, 4), "per_pair": torch.rand(2, 3, 4)}
        name = draw.choice([*tensors, "attention_layers", "other"])
        tensor = torch.rand(draw.choice(shapes)) * draw.choice([1.0, float("nan"), float("inf")])
        tensors[name] = tensor.to(
            draw.choice([torch.float32, torch.int64, torch.float16, torch.bool])
        )
        about = text_of({"model": "m", "n_pairs": 3, "versions": {"torch": "2"}}, draw)
        header = {"format": "rvelens-ars-1", "about": about.decode("utf-8", "replace")}
        save_file(tensors, path, metadata=header)
        if what := survived(lambda: ARSProfile.load(path)):
            failures.append(f"{number}: {what}: {name}")
    return failures, times


def configurations(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """The embedded model with a changed config.json."""
    good, times, failures = json.loads((TINY / "config.json").read_text()), 60, []
    shutil.copytree(TINY, folder / "model")
    for number in range(times):
        data = text_of(good, draw)
        (folder / "model" / "config.json").write_bytes(data)
        if what := survived(lambda: load_model(str(folder / "model"))):
            failures.append(f"{number}: {what}")
    return failures, times


AREAS: list[tuple[str, Area]] = [
    ("manifest.json of a run", reader("manifest.json", MANIFEST, read_run)),
    ("manifest.json of an intervention", reader("manifest.json", MANIFEST, Intervention.load)),
    ("tune.json", reader("tune.json", TUNED, lambda at: Tuned.load(at / "tune.json"))),
    ("report.json", reader("report.json", REPORT, read_report)),
    ("answers of a run", reader("pope/rve/answers.jsonl", ANSWER, answers, lines=True)),
    ("answers to judge", reader("a.jsonl", ANSWER, lambda at: load_items(at / "a.jsonl"), lines=True)),
    ("pairs", reader("p.jsonl", PAIR, lambda at: read_pair_rows(at / "p.jsonl"), lines=True)),
    ("cached replies", reader("reply.json", REPLY, kept_reply)),
    ("head profiles", profiles),
    ("config.json of a model", configurations),
]  # fmt: skip
