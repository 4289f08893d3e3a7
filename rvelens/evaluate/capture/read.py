"""Reads captured activations, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Int, Shaped
from safetensors import safe_open
from torch import Tensor

from rvelens.evaluate.capture.shards import IndexRow, key, read_entries
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.stored import MANIFEST, read_stored

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Capture:
    """A folder of captured tensors.

    Attributes:
        folder: the folder of the shards.
        made_with: the manifest: model, questions, points, rows and precision.
        entries: for each question id, its shard and its entry in the shard.
    """

    folder: Path
    made_with: Mapping[str, Any]
    entries: Mapping[str, tuple[Path, IndexRow]]

    @property
    def points(self) -> list[str]:
        """Names of the hook points."""
        return list(self.made_with["capture"]["names"])

    @cached_property
    def questions(self) -> pd.DataFrame:
        """A row for each question, with its shard."""
        import pandas as pd

        rows = [{"shard": path.name, **entry.model_dump()} for path, entry in self.entries.values()]
        return pd.DataFrame(rows, columns=["shard", *IndexRow.model_fields])

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        """Ids of the questions of which something was captured."""
        return (name for name, (_, entry) in self.entries.items() if not entry.error)

    @refuse_wrong_types
    def tensor(self, question: str, point: str) -> Shaped[Tensor, "*own"]:
        """The tensor of a hook point for a question, without padding; only this tensor is read.

        Returns:
            for scores and pattern [head key], for other points [...]. If rows are "all", [head query
            key] and [row ...].

        Raises:
            ValueError: no such question or point, or nothing was captured for the question.
        """
        if point not in self.points:
            raise ValueError(
                f"no point {point!r} in {self.folder}: expected one of {', '.join(self.points[:4])}; "
                "see .points for all."
            )
        return self._read(question, point)

    @refuse_wrong_types
    def input_ids(self, question: str) -> Int[Tensor, " key"]:
        """The tokens of a question's prompt."""
        return self._read(question, "input_ids")

    @refuse_wrong_types
    def is_image(self, question: str) -> Bool[Tensor, " key"]:
        """Which tokens of a question's prompt are image tokens."""
        return self._read(question, "is_image")

    def _read(self, question: str, name: str) -> Tensor:
        if question not in self.entries:
            raise ValueError(
                f"no question {question!r} in {self.folder}: expected one of its {len(self)} ids; see "
                ".questions."
            )
        path, entry = self.entries[question]
        if entry.error:
            raise ValueError(
                f"nothing was captured of {question!r} ({entry.error}): expected a question that could "
                "be asked; run the capture again."
            )
        with safe_open(path, framework="pt") as opened:
            return opened.get_tensor(key(entry.row, name))


@refuse_wrong_types
def open_capture(folder: str | Path) -> Capture:
    """Open a capture, also an unfinished one; only the headers of its files are read.

    Raises:
        ValueError: no capture in the folder, or a file that was changed.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"no capture in {folder}: expected the --out of `rvelens capture`; name that folder."
        )
    made_with = read_stored(folder / MANIFEST, dict, "the manifest of `rvelens capture`")
    if "capture" not in made_with:
        raise ValueError(
            f"{folder} holds something else than a capture: expected the --out of `rvelens capture`; "
            "name that folder."
        )
    shards = sorted(folder.glob("shard-*.safetensors"))
    entries = {entry.id: (path, entry) for path in shards for entry in read_entries(path)}
    return Capture(folder, made_with, entries)
