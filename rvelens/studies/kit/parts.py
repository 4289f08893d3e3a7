"""What a study has computed so far, kept as JSON so that it goes on after an interruption."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Item
from rvelens.evaluate.manifest import check_manifest
from rvelens.evaluate.processes import (
    Processes,
    Sign,
    at_work,
    meet,
    processes,
    wait_for_others,
)
from rvelens.files.atomic import (
    append_lines,
    as_json,
    cut_torn_line,
    locked,
    parse_json,
    read_lines,
    write_json,
)
from rvelens.files.paths import remove_if_refused


@contextmanager
def shared_parts(folder: Path, made_with: Mapping[str, Any]) -> Iterator[Parts]:
    """The parts in a folder, shared by the processes that `torchrun` or `accelerate launch` started.

    The first process waits at the end of the block until the others have left it.

    Args:
        folder: as in `Parts.open`.
        made_with: the same.

    Raises:
        ValueError: what `Parts.open` refuses; another run writes; a process failed or is gone.
    """
    here = processes()
    lock = f"{folder.name}.{here.rank}.lock" if here.rank else f"{folder.name}.lock"
    signs = folder.with_name(f"{folder.name}.processes")
    with (
        remove_if_refused(folder, alone=here.count == 1),
        locked(folder.with_name(lock), folder),
        at_work(signs, here) as sign,
    ):
        parts = Parts.open(folder, made_with) if here.is_first else Parts(folder)
        meet(here)
        yield replace(parts, sign=sign)
    if here.is_first:
        wait_for_others(signs, here)


@dataclass(frozen=True)
class Parts:
    """A folder of finished parts, all made with the same settings.

    Several processes share the work where all of them call the same methods in the same order: each
    computes its share, waits for the others, and has the whole.

    Attributes:
        folder: holds manifest.json beside the parts.
        sign: of this process among those that share the folder; None where it is alone.
    """

    folder: Path
    sign: Sign | None = None

    @classmethod
    def open(cls, folder: Path, made_with: Mapping[str, Any]) -> Parts:
        """The parts in a folder, none if it is new, or if a run ended before its first part.

        Raises:
            ValueError: the folder holds parts that were made with something else, which is named.
        """
        manifest = folder / "manifest.json"
        if manifest.exists() and [manifest] == list(folder.iterdir()):
            manifest.unlink()  # a mistake that the study refused must not take the folder
        check_manifest(folder, made_with)
        return cls(folder)

    def open_subfolder(self, name: str) -> Parts:
        """Further parts in a folder of their own, made with the same settings."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return replace(self, folder=folder)

    @property
    def here(self) -> Processes:
        """This process among those that share the folder."""
        return Processes() if self.sign is None else self.sign.here

    def together(self) -> None:
        """Wait until every process has come to this line."""
        if self.sign is not None:
            self.sign.together()

    def keep(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part by its name: as it was kept, or computed now by the first process and kept."""
        return self.keep_each({name: compute})[0]

    def keep_each(
        self,
        computes: Mapping[str, Callable[[], Any]],
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> list[Any]:
        """Parts by their names, as `keep` has them; processes take turns in computing them."""
        paths = {name: self.folder / f"{name}.json" for name in computes}
        for name in progress(list(computes)[self.here.rank :: self.here.count]):
            if not paths[name].exists():
                write_json(paths[name], computes[name]())
        self.together()
        return [_json(path.read_bytes(), path) for path in paths.values()]

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
        here = self.here
        path = self.folder / (f"{name}.{here.rank}.jsonl" if here.rank else f"{name}.jsonl")
        cut_torn_line(path)
        values = self._read_values(name)
        mine = batches[here.rank :: here.count]
        pending = [b for b in mine if any(values.get(item.id) is None for item in b)]
        for batch in progress(pending) if pending else pending:
            ids = [item.id for item in batch]
            new = dict(zip(ids, compute(batch), strict=True))
            append_lines(path, [new])
            values |= as_json(new)
        self.together()
        if here.count > 1:
            values = self._read_values(name)
        return {item.id: values[item.id] for batch in batches for item in batch}

    def _read_values(self, name: str) -> dict[str, Any]:
        """Values by item that every process has kept; of two, the one that could be computed."""
        values: dict[str, Any] = {}
        first = self.folder / f"{name}.jsonl"
        others = sorted(self.folder.glob(f"{glob.escape(name)}.[0-9]*.jsonl"))
        for path in (first, *others):
            for line in read_lines(path, drop_torn=True) if path.exists() else ():
                new = _json(line.content, line, dict)
                values |= {k: v for k, v in new.items() if v is not None or k not in values}
        return values


def _json(text: bytes, where: Any, kind: type = object) -> Any:
    """What was kept.

    Raises:
        ValueError: something else than this class writes.
    """
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if value is None or not isinstance(value, kind):
        raise ValueError(
            f"{where} is not a part of a study: expected JSON that the study wrote; remove it to "
            "compute it again."
        )
    return value
