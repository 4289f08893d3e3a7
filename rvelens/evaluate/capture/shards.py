"""A shard: one safetensors file with the tensors of a batch, and its questions in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Shaped
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rvelens.benchmarks import Item
from rvelens.files.atomic import write_bytes
from rvelens.files.stored import Stored


class IndexRow(Stored):
    """A question of a shard, as a row of the index.

    Attributes:
        id, image, question, label, group: attributes of the question.
        n_tokens: the number of tokens of its prompt, including image tokens; 0 if there is an error.
        row: its number in the shard, with which the names of its tensors begin.
        error: why nothing was captured; "" if tensors were captured.
    """

    id: str
    image: str
    question: str
    label: str
    group: str
    n_tokens: int
    row: int
    error: str


_ENTRIES = TypeAdapter(list[IndexRow])


@dataclass(frozen=True, eq=False)
class CapturedQuestion:
    """The captured tensors of one question.

    Attributes:
        tensors: the tensors by name.
        error: why nothing was captured; None if tensors were captured.
    """

    tensors: Mapping[str, Shaped[Tensor, "*own"]]
    error: str | None = None


def shard_path(folder: Path, number: int) -> Path:
    """The file of a batch."""
    return folder / f"shard-{number:06d}.safetensors"


def key(row: int, name: str) -> str:
    """The name of a question's tensor in its shard."""
    return f"{row}/{name}"


def write_shard(path: Path, items: Sequence[Item], parts: Sequence[CapturedQuestion]) -> None:
    """Write the tensors of a batch, completely or not at all."""
    tensors = {key(n, name): x for n, part in enumerate(parts) for name, x in part.tensors.items()}
    entries = [
        IndexRow(
            id=item.id,
            image=item.image,
            question=item.text,
            label=item.label or "",
            group=item.group,
            n_tokens=len(part.tensors["input_ids"]) if part.error is None else 0,
            row=n,
            error=part.error or "",
        ).model_dump()
        for n, (item, part) in enumerate(zip(items, parts, strict=True))
    ]
    write_bytes(path, save(tensors, {"questions": json.dumps(entries)}))


def read_entries(path: Path) -> list[IndexRow]:
    """The questions of a shard, from its header.

    Raises:
        ValueError: a file that is not a shard.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            return _ENTRIES.validate_json((opened.metadata() or {})["questions"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is not a shard of captured tensors: expected a file of `rvelens capture`; remove "
            "the file and run the same command again."
        ) from error


def is_complete(path: Path, items: Sequence[Item]) -> bool:
    """Whether a shard has the tensors of every question of a batch, so that none is tried again."""
    if not path.exists():
        return False
    entries = read_entries(path)
    expected = [(item.id, item.text) for item in items]
    return [(e.id, e.question) for e in entries] == expected and not any(e.error for e in entries)
