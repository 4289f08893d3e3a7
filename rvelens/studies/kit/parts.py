"""What a study has computed so far, kept as JSON so that it goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Item
from rvelens.evaluate.manifest import settle
from rvelens.files.atomic import (
    append_lines,
    as_json,
    cut_torn_line,
    parse_json,
    read_lines,
    write_json,
)


@dataclass(frozen=True)
class Parts:
    """A folder of finished parts, all made with the same settings.

    Attributes:
        folder: holds manifest.json beside the parts.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, made_with: Mapping[str, Any]) -> Parts:
        """The parts in a folder, none if it is new, or if a run ended before its first part.

        Raises:
            ValueError: the folder holds parts that were made with something else, which is named.
        """
        there = folder / "manifest.json"
        if there.exists() and [there] == list(folder.iterdir()):
            there.unlink()  # a mistake that the study refused must not take the folder
        settle(folder, made_with)
        return cls(folder)

    def below(self, name: str) -> Parts:
        """Further parts in a folder of their own, made with the same settings."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Parts(folder)

    def keep(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part by its name: as it was kept, or computed now and kept."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, compute())
        return _json(path.read_bytes(), path)

    def by_item(
        self,
        name: str,
        batches: Sequence[Sequence[Item]],
        compute: Callable[[Sequence[Item]], Sequence[Any]],
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> dict[str, Any]:
        """A value (as JSON) for each item, by its id; a batch that is there whole is not computed.

        What could not be computed is None, and tried again in the next run.
        """
        path = self.folder / f"{name}.jsonl"
        cut_torn_line(path)
        found: dict[str, Any] = {}
        for line in read_lines(path, drop_torn=True) if path.exists() else ():
            found |= _json(line.content, line, dict)
        left = [b for b in batches if any(found.get(item.id) is None for item in b)]
        for batch in progress(left) if left else left:
            ids = [item.id for item in batch]
            new = dict(zip(ids, compute(batch), strict=True))
            append_lines(path, [new])
            found |= as_json(new)
        return {item.id: found[item.id] for batch in batches for item in batch}


def _json(text: bytes, where: Any, kind: type = object) -> Any:
    """What was kept.

    Raises:
        ValueError: something else than this class writes.
    """
    try:
        found = parse_json(text)
    except ValueError:
        found = None
    if found is None or not isinstance(found, kind):
        raise ValueError(
            f"{where} is not a part of a study: expected JSON that the study wrote; remove it to "
            "compute it again."
        )
    return found
