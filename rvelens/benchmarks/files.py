"""Reading what was published: files found by name below one folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rvelens.benchmarks.base import Item
from rvelens.benchmarks.rows import Row, read_rows
from rvelens.files.paths import path_below
from rvelens.model.prompts import load_image

# Names that every folder of answers of `rvelens.evaluate` holds.
_RUN = {"manifest.json", "answers.jsonl"}


@dataclass(frozen=True)
class Folder:
    """Every file below the folder that a user calls the data, by its name.

    Attributes:
        path: the folder.
        by_name: file name to the paths that end in it, sorted.
    """

    path: Path
    by_name: Mapping[str, list[Path]] = field(repr=False)

    @classmethod
    def scan(cls, data: Path | None, benchmark: str) -> Folder:
        """List a folder and what is below it, links included; those that lead out are never read.

        Raises:
            ValueError: none was given, or it is not there.
        """
        if data is None:
            raise ValueError(
                f"no data folder for {benchmark}: expected the folder that holds its files; pass it "
                "as data (--data)."
            )
        if not data.is_dir():
            raise ValueError(
                f"no folder {data}: expected the folder with the files of {benchmark}; check the path."
            )
        by_name: dict[str, list[Path]] = defaultdict(list)
        visited = set()
        for place, folders, names in os.walk(data, followlinks=True):
            real = os.path.realpath(place)
            if real in visited:  # a link to a folder further up would never end
                folders.clear()
                continue
            visited.add(real)
            if set(names) >= _RUN:  # answers of a run, which are no annotations
                continue
            for name in names:
                by_name[name].append(Path(place, name))
        return cls(data, {name: sorted(paths) for name, paths in by_name.items()})

    def find(self, name: str) -> list[Path]:
        """Files whose path ends in `name`, which may hold folders.

        Raises:
            ValueError: there are only links to files outside of the folder.
        """
        parts = _parts(name)
        paths = self.by_name.get(parts[-1], []) if parts else []
        paths = [path for path in paths if path.parts[-len(parts) :] == parts]
        inside = [path for path in paths if self._is_inside(path)]
        if paths and not inside:
            path_below(self.path, self.relative(paths[0]))  # says why
        return inside

    def _is_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path))

    def annotation(self, *names: str, near: Path | None = None) -> Path:
        """The annotation file of one of some published names.

        Args:
            names: tried in this order.
            near: of several files, the one that shares the most folders with this one.

        Raises:
            ValueError: there is none, or there are several that differ.
        """
        paths = next((paths for paths in map(self.find, names) if paths), [])
        if not paths:
            raise ValueError(
                f"no {' or '.join(names)} below {self.path}: expected the published file; put it there."
            )
        if near is not None:
            closest = max(_shared(path, near) for path in paths)
            paths = [path for path in paths if _shared(path, near) == closest]
        if len({sha256(path) for path in paths}) > 1:
            raise ValueError(
                f"{len(paths)} different files {names[0]} below {self.path} "
                f"({self._names(paths)}): expected only one; pass a folder that holds one of them."
            )
        return paths[0]

    def picture(
        self,
        name: str,
        hints: Collection[str] = (),
        fits: Callable[[set[str]], bool] = lambda folder_words: True,
    ) -> Path:
        """The image file of a published name; where it should be if it is nowhere.

        Args:
            name: as the annotations spell it, with or without folders.
            hints: of several files, the one whose folders hold the most of these words.
            fits: whether a file may be meant at all, by the words of its folders.

        Raises:
            ValueError: an empty name, or several files that the hints do not tell apart.
        """
        parts = _parts(name)
        if not parts:
            raise ValueError(f"the image is {name!r}: expected a file name; correct the row.")
        paths = self.find(name) or self.find(parts[-1])
        paths = [path for path in paths if fits(words(self.relative(path.parent)))]
        if len(paths) > 1:
            best = max(self._matches(path, hints) for path in paths)
            paths = [path for path in paths if self._matches(path, hints) == best]
        if len(paths) > 1 and len({sha256(path) for path in paths}) > 1:
            raise ValueError(
                f"image {name!r} matches {len(paths)} different files ({self._names(paths)}): "
                "expected exactly one; remove the others."
            )
        return paths[0] if paths else self.path / parts[-1]

    def _matches(self, path: Path, hints: Collection[str]) -> int:
        return len(set(hints) & words(self.relative(path.parent)))

    def read(self, path: Path) -> list[Row]:
        """The rows of JSON lines or of a JSON array, with or without a byte order mark.

        Raises:
            ValueError: not UTF-8, no rows, an array that is not JSON, or a link out of the folder.
        """
        path_below(self.path, self.relative(path))
        return read_rows(path, self.relative(path))

    def relative(self, path: Path) -> str:
        """A path below the folder, as it reads from there."""
        return path.relative_to(self.path).as_posix()

    def _names(self, paths: Iterable[Path]) -> str:
        return ", ".join(map(self.relative, paths))

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of files, by their path below the folder."""
        return {self.relative(path): sha256(path) for path in paths}


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", ".."))


def _shared(path: Path, other: Path) -> int:
    return len(os.path.commonpath([path, other]))


def words(text: str) -> set[str]:
    """The words of a path, in lower case: "Dall-E_generated/action" has dall, e, generated, action."""
    return set(re.findall(r"[a-z]+", text.lower()))


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def photograph(path: Path, *, upright: bool = False, **rest: Any) -> Item:
    """A question about an image file; `rest` are the other attributes of the item.

    Args:
        path: the file.
        upright: turn the picture as its camera says; boxes and masks of a benchmark are of the file's
            own pixels.
        **rest: attributes of the item.
    """
    return Item(load=partial(load_image, path, upright=upright), files=(path,), **rest)
