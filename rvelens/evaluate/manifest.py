"""The conditions of a run: written before the first answer, and compared when it is resumed."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import rvelens
from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Decoding
from rvelens.evaluate.fingerprint import fingerprint
from rvelens.files.atomic import as_json, write_json
from rvelens.files.stored import MANIFEST, RUN_FORMAT, RunManifest, checked, read_stored
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import render_prompt
from rvelens.model.weights import dtype_name, weights_digest

FORMAT = RUN_FORMAT


def about_model(model: HookedLVLM) -> dict[str, Any]:
    """Name, revision and weights of a model, for a manifest."""
    return {
        "name": model.name,
        "revision": getattr(model.hf_model.config, "_commit_hash", None),
        "family": model.family.name,
        "dtype": dtype_name(model),
        "weights": weights_digest(model),
        "processor": processor_digest(model),
    }


def make_manifest(
    model: HookedLVLM,
    model_is: Mapping[str, Any],
    benchmark: Benchmark,
    method: Method,
    decoding: Decoding,
) -> dict[str, Any]:
    """Everything that the answers of one benchmark under one method depend on.

    Batch size and number of processes are not included: they change only rounding.

    Args:
        model: the model that answers.
        model_is: the result of `about_model`.
        benchmark, method, decoding: those of the run.

    Raises:
        ValueError: a method without a version, whose code cannot be identified.
    """
    return {
        "format": FORMAT,
        "model": dict(model_is),
        "benchmark": about_questions(benchmark),
        "method": about_method(method),
        "decoding": {
            **asdict(decoding),
            "greedy": True,
            "example": example(model, decoding.prompt),
        },
        "versions": versions(),
    }


def example(model: HookedLVLM, prompt: str) -> str:
    """The prompt of the model around "{question}"."""
    return render_prompt(model.family, model.processor, "{question}", prompt)


def about_questions(benchmark: Benchmark) -> dict[str, Any]:
    """Files and questions of a benchmark, for a manifest."""
    return {
        "name": benchmark.name,
        "files": dict(benchmark.files),
        "questions": len(benchmark.items),
        "items": _digest(f"{i.id}\t{i.image}\t{i.text}\t{i.truth}" for i in benchmark.items),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that numbers may depend on."""
    return {
        "python": platform.python_version(),
        "rvelens": rvelens.__version__,
        **{name: metadata.version(name) for name in ("torch", "transformers")},
    }


def about_method(method: Method) -> dict[str, Any]:
    """Name and parameters of a method, with its version or a fingerprint of its code.

    Raises:
        ValueError: no version, and code that cannot be identified.
    """
    is_ = {"name": method.name, "parameters": dict(method.parameters)}
    if method.version is not None:
        return {**is_, "version": method.version}
    if not method.hooks and method.contrast is None and method.of_question is None:
        return is_
    parts: tuple[Any, ...] = (method.hooks, method.query_rows, method.contrast)
    if method.of_question is not None:  # runs made before there were such methods go on
        parts = (*parts, method.of_question)
    return {**is_, "code": fingerprint(parts, f"method {method.name!r}")}


def processor_digest(model: HookedLVLM) -> str | None:
    """SHA-256 of the configuration and tokenizer of a model's processor; None without a processor."""
    processor = model.processor
    if processor is None:
        return None
    parts = [json.dumps(processor.to_dict(), sort_keys=True, default=str)]
    tokenizer = getattr(processor, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Calls leave their truncation and padding behind.
        rules = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
        parts.append(json.dumps(rules, sort_keys=True))
    elif tokenizer is not None:
        parts.append(json.dumps(tokenizer.get_vocab(), sort_keys=True))
    return _digest(iter(parts))


def _digest(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def check_manifest(folder: Path, made_with: Mapping[str, Any], answers: Sequence[str] = ()) -> None:
    """Write the manifest of a new run, or compare it with the existing one.

    Args:
        folder: the folder of the run.
        made_with: everything that the run depends on.
        answers: names of the files for answers; names from earlier commands stay in the manifest.

    Raises:
        ValueError: the folder holds a run with other conditions, which the message names, or a file
            with a name in `answers` that the run did not write.
    """
    path = folder / MANIFEST
    made_with = as_json(made_with)
    if not path.exists() and any(folder.glob("answers*.jsonl")):
        raise ValueError(
            f"{folder} holds answers without a manifest: expected a manifest that says how they "
            "were made; choose another folder."
        )
    stored = None
    if path.exists():
        stored = read_stored(path, dict, "the manifest of a run; name another folder")
        refuse_differences(folder, _conditions(stored), made_with)
    if not answers:
        if stored is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, made_with)
        return
    named = [] if stored is None else checked(stored, RunManifest).answers
    new = [name for name in answers if name not in named]
    for name in new:
        if (folder / name).exists():
            raise ValueError(
                f"{folder / name} is there, and the run's manifest does not name it: expected only "
                "files of the run; move it away."
            )
    if new:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {**made_with, "answers": [*named, *new]})


def refuse_differences(folder: Path, earlier: Any, here: Any) -> None:
    """Raise ValueError if a run in a folder has other conditions."""
    changes = list(differences(earlier, here))
    if changes:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changes)}): expected the same "
            "settings to resume it; choose another folder."
        )


def _conditions(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without the names of files, which grow with the number of processes."""
    return {name: value for name, value in made_with.items() if name != "answers"}


def differences(earlier: Any, here: Any, name: str = "") -> Iterator[str]:
    """ "method.parameters.alpha was 0.05 and is 0.1" for each value that differs."""
    if isinstance(earlier, dict) and isinstance(here, dict):
        for key in sorted(earlier.keys() | here.keys()):
            yield from differences(
                earlier.get(key), here.get(key), f"{name}.{key}" if name else key
            )
    elif earlier != here:
        yield f"{name} was {_short(earlier, here)} and is {_short(here, earlier)}"


def _short(value: Any, other: Any) -> str:
    """As JSON; of a digest the beginning, of a long text what stands around the first difference."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}..."
    text, other_text = (json.dumps(content, ensure_ascii=False) for content in (value, other))
    if len(text) <= 60:
        return text
    pairs = enumerate(zip(text, other_text, strict=False))
    same = next((n for n, (a, b) in pairs if a != b), min(len(text), len(other_text)))
    start = max(0, min(same - 20, len(text) - 54))
    shown = text[start : start + 54]
    return "..." * (start > 0) + shown + "..." * (start + 54 < len(text))
