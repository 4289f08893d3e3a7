"""Stores hook points of many questions on disk, resumable, in one process or several."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rvelens.benchmarks import Benchmark, Item
from rvelens.evaluate.answering import (
    backing_off,
    batches,
    is_out_of_memory,
    load_pictures,
    query_rows,
    reason_of,
)
from rvelens.evaluate.capture.points import (
    DTYPES,
    ROW_CHOICES,
    matching_points,
    rounded,
    rows_of_sample,
    token_tensors,
)
from rvelens.evaluate.capture.read import open_capture
from rvelens.evaluate.capture.shards import CapturedQuestion, is_complete, shard_path, write_shard
from rvelens.evaluate.manifest import (
    about_model,
    about_questions,
    check_manifest,
    example,
    versions,
)
from rvelens.evaluate.processes import at_work, meet, processes, wait_for_others
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import locked, write_bytes
from rvelens.files.paths import remove_if_refused
from rvelens.files.wording import counted
from rvelens.model.hooked_lvlm import HookedLVLM

CAPTURE_FORMAT = "rvelens-capture-1"


@refuse_wrong_types
@dataclass(frozen=True)
class CaptureRequest:
    """What to capture for each question.

    Attributes:
        points: patterns of hook points, see `rvelens.evaluate.capture.points.matching_points`.
        layers: the layers, for points in layers; None for all.
        rows: "last", the row that predicts the answer; or "all", every row of the prompt.
        dtype: "auto" for the model's own precision, or float32, bfloat16 or float16.
        prompt: a preset of the family, or a template.
        suffix: text after each question, after a space.
    """

    points: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    rows: str = "last"
    dtype: str = "auto"
    prompt: str = "chat"
    suffix: str = ""

    def __post_init__(self) -> None:
        for pattern in self.points or ("",):
            if not re.fullmatch(r"[\w.*?]+", pattern):
                raise ValueError(
                    f"points {pattern!r}: expected names of hook points with * and ?, such as "
                    "hook_resid_post or attn.hook_*; correct the pattern."
                )
        for name, value, choices in (
            ("rows", self.rows, ROW_CHOICES),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in choices:
                raise ValueError(
                    f"{name}={value!r}: expected one of {', '.join(choices)}; pass one of them."
                )


@dataclass(frozen=True)
class Captured:
    """The size of a capture.

    Attributes:
        questions: the number of questions.
        shards: the number of files.
        n_bytes: the bytes of all tensors, estimated from the first batch.
        points: the number of hook points.
    """

    questions: int
    shards: int
    n_bytes: int
    points: int

    def __str__(self) -> str:
        size, unit = float(self.n_bytes), "B"
        for larger in ("kB", "MB", "GB", "TB"):
            if size < 1000:
                break
            size, unit = size / 1000, larger
        return (
            f"{counted(self.points, 'hook point')} of "
            f"{counted(self.questions, 'question')}: about {size:.3g} {unit} in "
            f"{counted(self.shards, 'shard')}"
        )


@refuse_wrong_types
def estimate_size(
    model: HookedLVLM, benchmark: Benchmark, request: CaptureRequest, batch_size: int = 8
) -> Captured:
    """The size of a capture, estimated from the first batch of questions; nothing is written.

    Raises:
        ValueError: a pattern without a match, a point that cannot be hooked, or no question in the
            first batch that can be asked.
    """
    names = matching_points(model, request.points, request.layers)
    every = batches(benchmark.items, batch_size)
    parts, _ = backing_off(partial(_parts, model, names, request), every[0], batch_size)
    sizes = [_n_bytes(part) for part in parts if part.error is None]
    if not sizes:
        raise ValueError(
            f"none of the first {counted(len(parts), 'question')} of {benchmark.name} can be asked "
            f"({parts[0].error}): expected one; look at the pictures."
        )
    n_bytes = round(sum(sizes) / len(sizes) * len(benchmark.items))
    return Captured(len(benchmark.items), len(every), n_bytes, len(names))


@refuse_wrong_types
def capture(
    model: HookedLVLM,
    benchmark: Benchmark,
    request: CaptureRequest,
    out: str | Path,
    *,
    batch_size: int = 8,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda items: items,
) -> Path | None:
    """Run the prompt of every question once, and store the tensors of hook points.

    Each batch becomes one safetensors file. A second call with the same arguments captures missing
    batches. Several processes (`accelerate launch`) share the batches. At the end, the first process
    writes an index for other tools: index.parquet, or index.csv if pyarrow is not installed.
    `open_capture` does not need it.

    Args:
        model: the hooked model, without active hooks.
        benchmark: questions, from `load_benchmark` or `load_questions`.
        request: hook points, rows and precision.
        out: the folder.
        batch_size: questions per forward and shard; forwards are halved when memory runs out.
        progress: wraps the iteration over batches.

    Returns:
        the index. With several processes, only the first returns it, and the others return None.

    Raises:
        ValueError: a folder with another capture, active hooks, points that cannot be captured, too
            little disk space, or another process that failed.
    """
    if model.list_hooks():
        raise ValueError(
            "hooks are on, and the manifest of a capture does not record them: expected none; leave "
            "the model.hooks block."
        )
    out, here = Path(out), processes()
    names = matching_points(model, request.points, request.layers)
    every = list(enumerate(batches(benchmark.items, batch_size)))
    made_with = {
        "format": CAPTURE_FORMAT,
        "model": about_model(model),
        "questions": about_questions(benchmark),
        "capture": {**asdict(request), "batch_size": batch_size, "names": names},
        "example": example(model, request.prompt),
        "versions": versions(),
    }
    with remove_if_refused(out, alone=here.count == 1), at_work(out, here):
        if here.is_first:
            check_manifest(out, made_with)
        meet(here)
        mine, size = every[here.rank :: here.count], batch_size
        with locked(out / f"capture-{here.rank}.lock", out):
            missing = [
                (n, batch) for n, batch in mine if not is_complete(shard_path(out, n), batch)
            ]
            for number, batch in progress(missing) if missing and here.is_first else missing:
                parts, size = backing_off(partial(_parts, model, names, request), batch, size)
                write_shard(shard_path(out, number), batch, parts)
    if not here.is_first:
        return None
    wait_for_others(out, here)
    return _write_index(out)


def check_disk_space(folder: Path, size: Captured) -> None:
    """Raise ValueError if the disk of a folder has too little space for a capture."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    if size.n_bytes > free:
        raise ValueError(
            f"{size}, and {place} has {free / 1e9:.3g} GB free: expected more room; take fewer points, "
            "layers or rows, or a narrower precision."
        )


def _n_bytes(part: CapturedQuestion) -> int:
    return sum(x.numel() * x.element_size() for x in part.tensors.values())


def _write_index(out: Path) -> Path:
    frame = open_capture(out).questions
    path = out / ("index.parquet" if find_spec("pyarrow") else "index.csv")
    data = frame.to_parquet() if find_spec("pyarrow") else frame.to_csv(index=False).encode()
    write_bytes(path, data)
    return path


@torch.no_grad()
def _parts(
    model: HookedLVLM, names: Sequence[str], request: CaptureRequest, items: Sequence[Item]
) -> list[CapturedQuestion]:
    """What is captured of each item; of what cannot be asked, the reason."""
    images, errors = load_pictures(items)
    readable = [item for item in items if item.image in images]
    by_id: dict[str, CapturedQuestion] = {}
    if readable:
        pictures = [images[item.image] for item in readable]
        texts = [f"{item.text} {request.suffix}".strip() for item in readable]
        try:
            parts = _of_batch(model, names, request, pictures, texts)
            by_id = dict(zip([item.id for item in readable], parts, strict=True))
        except (ValueError, RuntimeError, MemoryError) as error:
            if is_out_of_memory(error) or not isinstance(error, ValueError):
                raise
            if len(items) > 1:  # one question that cannot be asked must not lose the others
                return [part for item in items for part in _parts(model, names, request, [item])]
            errors[items[0].image] = reason_of(error)
    return [by_id.get(item.id) or CapturedQuestion({}, errors[item.image]) for item in items]


def _of_batch(
    model: HookedLVLM,
    names: Sequence[str],
    request: CaptureRequest,
    images: list[Image.Image],
    texts: list[str],
) -> list[CapturedQuestion]:
    inputs = model.prepare(images, texts, request.prompt)
    with query_rows(model, request.rows):  # type: ignore[arg-type]  # `check` has seen it
        _, cache = model.run_with_cache(
            **inputs, names_filter=list(names), return_cache_object=False, logits_to_keep=1
        )
    tokens, dtype = model.token_map(inputs), DTYPES[request.dtype]
    return [
        CapturedQuestion(
            token_tensors(inputs["input_ids"], tokens, n)
            | {
                name: rounded(
                    name, rows_of_sample(name, cache[name], tokens, n, request.rows), dtype
                )
                for name in names
            }
        )
        for n in range(len(images))
    ]
