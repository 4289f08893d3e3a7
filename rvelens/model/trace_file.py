"""The file of a trace: tensors and the picture, and the texts in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rvelens.files import atomic as files
from rvelens.files.stored import MalformedError, Stored, parse_stored
from rvelens.model.limits import check_size
from rvelens.tokens.grid import ImageGrid, Tile

TRACE_FORMAT = "rvelens-trace-1"
_EXPECTED = "a file that Trace.save wrote"
# What each answer has in the file, behind its number: "0.ids".
TENSORS = ("ids", "log_probs", "attention")
Count = Annotated[int, Field(ge=1)]


class StoredTile(Stored):
    """A tile of the patch grid, see `rvelens.tokens.grid.Tile`."""

    start: Annotated[int, Field(ge=0)]
    rows: Count
    columns: Count
    stride: Count
    box: Annotated[list[float], Field(min_length=4, max_length=4)]


class StoredGrid(Stored):
    """The patch grid of the image, see `rvelens.tokens.grid.ImageGrid`."""

    n_tokens: Count
    tiles: list[StoredTile]

    def grid(self) -> ImageGrid:
        """The grid itself."""
        tiles = []
        for tile in self.tiles:
            x0, y0, x1, y1 = tile.box
            tiles.append(Tile(tile.start, tile.rows, tile.columns, tile.stride, (x0, y0, x1, y1)))
        return ImageGrid(self.n_tokens, tuple(tiles))


class StoredTracedAnswer(Stored):
    """The texts of one answer."""

    name: str
    text: str
    pieces: Annotated[list[str], Field(min_length=1)]


class StoredTrace(Stored):
    """The header of a trace's file."""

    model: str
    question: str
    prompt: str
    grid: StoredGrid | None
    answers: Annotated[list[StoredTracedAnswer], Field(min_length=1)]


def check_trace_path(path: str | Path) -> None:
    """Raise ValueError if a trace cannot be written; call it before the work."""
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file name that ends in .safetensors; rename it.")
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: expected a file in a folder that exists; create it first.")


def write_trace(
    path: str | Path, about: Mapping[str, Any], image: Image.Image, answers: Sequence[Any]
) -> None:
    """Write the texts, the picture and the tensors of a trace to one safetensors file.

    Args:
        path: the file.
        about: the fields of `StoredTrace`.
        image: in RGB.
        answers: objects with the attributes `ids`, `log_probs` and `attention`.

    Raises:
        ValueError: the path does not end in .safetensors, or its folder does not exist.
    """
    check_trace_path(path)
    tensors = {"image": _png(image)}
    for number, answer in enumerate(answers):
        tensors |= {f"{number}.{name}": getattr(answer, name).contiguous() for name in TENSORS}
    files.write_bytes(path, save(tensors, {"format": TRACE_FORMAT, "about": json.dumps(about)}))


def read_trace(path: str | Path) -> tuple[StoredTrace, Image.Image, list[dict[str, Tensor]]]:
    """The texts, the picture, and the tensors of each answer, from a file of `write_trace`.

    Raises:
        ValueError: no such file, or not a trace.
    """
    if not Path(path).is_file():
        raise ValueError(f"no trace at {path}: expected {_EXPECTED}; check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): expected {_EXPECTED}; trace again."
        ) from error
    if header.get("format") != TRACE_FORMAT:
        raise ValueError(
            f"{path} is not a trace (format {header.get('format')!r}): expected {TRACE_FORMAT!r}, as "
            "Trace.save writes; record the trace again."
        )
    try:
        about = parse_stored(header.get("about", ""), StoredTrace)
        _check(about, tensors)
        image = _picture(tensors["image"])
    except ValueError as error:
        raise ValueError(
            f"{path} is not a trace ({error}): expected {_EXPECTED}; trace the question again."
        ) from error
    numbers = range(len(about.answers))
    return about, image, [{name: tensors[f"{n}.{name}"] for name in TENSORS} for n in numbers]


def _check(about: StoredTrace, tensors: Mapping[str, Tensor]) -> None:
    """Raise MalformedError where tensors are not those of the header."""
    numbers = range(len(about.answers))
    names = {"image", *(f"{number}.{name}" for number in numbers for name in TENSORS)}
    if set(tensors) != names:
        raise MalformedError(f"tensors {', '.join(sorted(set(tensors) ^ names))}")
    shapes = set()
    for number, answer in enumerate(about.answers):
        ids, log_probs, attention = (tensors[f"{number}.{name}"] for name in TENSORS)
        n_tokens = (len(answer.pieces),)
        kinds = (ids.dtype, log_probs.dtype, attention.dtype)
        if kinds != (torch.int64, torch.float32, torch.float32):
            raise MalformedError(f"{answer.name}: tensors of other dtypes")
        if not tuple(ids.shape) == tuple(log_probs.shape) == n_tokens == attention.shape[:1]:
            raise MalformedError(f"{answer.name}: another number of tokens than pieces")
        if attention.dim() != 4 or not bool(((attention >= 0) & (attention <= 1.001)).all()):
            raise MalformedError(f"{answer.name}: attention that is none")
        if not bool((log_probs <= 1e-3).all()):
            raise MalformedError(f"{answer.name}: log-probabilities above 0")
        shapes.add(tuple(attention.shape[1:]))
    grid, n_image = about.grid, next(iter(shapes))[-1]
    if len(shapes) > 1 or (grid is not None and n_image != grid.n_tokens):
        raise MalformedError("answers of different images")
    for tile in [] if grid is None else grid.tiles:
        if tile.start + (tile.rows - 1) * tile.stride + tile.columns > n_image:
            raise MalformedError("a tile beyond the image's tokens")


def _png(image: Image.Image) -> UInt8[Tensor, " byte"]:
    """The picture without loss."""
    content = BytesIO()
    image.save(content, "PNG")
    return torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)


def _picture(content: Any) -> Image.Image:
    """The picture of `_png`; MalformedError where there is none."""
    if content.dtype != torch.uint8 or content.dim() != 1:
        raise MalformedError("image: no bytes of a PNG")
    try:
        with Image.open(BytesIO(np.asarray(content).tobytes()), formats=("PNG",)) as opened:
            check_size(opened.size, "image")
            return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise MalformedError(f"image: {error}") from error
