"""What a run was made with: written before the first answer, compared before any further one."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import rvelens
from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Decoding
from rvelens.files import as_json, read_json, write_json
from rvelens.methods import Method
from rvelens.model import HookedLVLM
from rvelens.prompts import render

FORMAT = "rvelens-run-1"
_SAMPLE = 1024


def about_model(model: HookedLVLM) -> dict[str, Any]:
    """Name, revision and weights of a model, for a manifest."""
    return {
        "name": model.name,
        "revision": getattr(model.hf_model.config, "_commit_hash", None),
        "family": model.family.name,
        "dtype": str(model.hf_model.dtype).removeprefix("torch."),
        "weights": weights_digest(model),
    }


def manifest(
    model: HookedLVLM,
    model_is: Mapping[str, Any],
    benchmark: Benchmark,
    method: Method,
    decoding: Decoding,
) -> dict[str, Any]:
    """Everything that the answers of one benchmark under one method depend on.

    Batch size and number of processes are left out: they change rounding, not what is computed.

    Args:
        model: the model that answers.
        model_is: what `about_model` says of it.
        benchmark, method, decoding: of the run.
    """
    return {
        "format": FORMAT,
        "model": dict(model_is),
        "benchmark": about_questions(benchmark),
        "method": {"name": method.name, "parameters": dict(method.parameters)},
        "decoding": {
            **asdict(decoding),
            "greedy": True,
            "example": example(model, decoding.prompt),
        },
        "versions": versions(),
    }


def example(model: HookedLVLM, prompt: str) -> str:
    """What the model reads around "{question}"."""
    return render(model.family, model.processor, "{question}", prompt)


def about_questions(benchmark: Benchmark) -> dict[str, Any]:
    """Files and questions of a benchmark, for a manifest."""
    return {
        "name": benchmark.name,
        "files": dict(benchmark.files),
        "questions": len(benchmark.items),
        "items": _digest(f"{i.id}\t{i.image}\t{i.text}\t{i.truth}" for i in benchmark.items),
    }


def versions() -> dict[str, str]:
    """Of what numbers may depend on."""
    return {
        "python": platform.python_version(),
        "rvelens": rvelens.__version__,
        **{name: metadata.version(name) for name in ("torch", "transformers")},
    }


def weights_digest(model: HookedLVLM) -> str:
    """SHA-256 over each tensor's name, shape, dtype, sum, and 1024 evenly spaced values.

    Not over every byte, which takes minutes for large models; a changed weight changes its sum.
    """

    def lines() -> Iterator[str]:
        for name, tensor in sorted(model.hf_model.state_dict().items()):
            flat = tensor.detach().flatten()
            step = max(flat.numel() // _SAMPLE, 1)
            sample = flat[::step].float().cpu().numpy().tobytes()
            total = float(flat.sum(dtype=torch.float64))
            digest = hashlib.sha256(sample).hexdigest()
            yield f"{name}\t{tuple(tensor.shape)}\t{tensor.dtype}\t{total!r}\t{digest}"

    return _digest(lines())


def _digest(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def settle(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Write the manifest of a new run, or hold it against the one that is there.

    Raises:
        ValueError: the folder holds a run that was made with something else, which is named.
    """
    path = folder / "manifest.json"
    made_with = as_json(made_with)
    if not path.exists() and any(folder.glob("answers*.jsonl")):
        raise ValueError(
            f"{folder} holds answers without a manifest: expected to know what they were made with; "
            "name another folder."
        )
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, made_with)
        return
    try:
        there = read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read: expected the manifest of a run; name another folder."
        ) from error
    changes = list(differences(there, made_with))
    if changes:
        raise ValueError(
            f"{folder} holds a run made with something else ({'; '.join(changes)}): expected the same "
            "to go on with it; name another folder."
        )


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """ "method.parameters.alpha was 0.05 and is 0.1" for each leaf that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} was {_short(there, here)} and is {_short(here, there)}"


def _short(value: Any, other: Any) -> str:
    """As JSON; of a digest the beginning, of a long text what stands around the first difference."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}..."
    text, beside = (json.dumps(one, ensure_ascii=False) for one in (value, other))
    if len(text) <= 60:
        return text
    pairs = enumerate(zip(text, beside, strict=False))
    same = next((n for n, (one, two) in pairs if one != two), min(len(text), len(beside)))
    start = max(0, min(same - 20, len(text) - 54))
    shown = text[start : start + 54]
    return "..." * (start > 0) + shown + "..." * (start + 54 < len(text))
