"""Reads published files, which are found by name below one folder."""

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
    """Every file below the data folder, by its name.

    Attributes:
        path: the folder.
        by_name: for each file name, the sorted paths that end in it.
    """

    path: Path
    by_name: Mapping[str, list[Path]] = field(repr=False)

    @classmethod
    def scan(cls, data: Path | None, benchmark: str) -> Folder:
        """List a folder with everything below it, including links; links that lead out are never read.

        Raises:
            ValueError: no folder was given, or it does not exist.
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
        """Files whose path ends in `name`, which may include folders.

        Raises:
            ValueError: all of them are links to files outside of the folder.
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
        """The annotation file with one of several published names.

        Args:
            names: tried in this order.
            near: if there are several files, take the one that shares the most folders with this file.

        Raises:
            ValueError: there is no such file, or there are several that differ.
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
        """The image file with a published name; its expected path if it does not exist.

        Args:
            name: the name in the annotations, with or without folders.
            hints: if there are several files, take the one whose folders have the most of these words.
            fits: a function from the words of a file's folders to whether the file may be used.

        Raises:
            ValueError: an empty name, or several files that fit the hints equally well.
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
            ValueError: text that is not UTF-8, no rows, an array that is not JSON, or a link out of the
                folder.
        """
        path_below(self.path, self.relative(path))
        return read_rows(path, self.relative(path))

    def relative(self, path: Path) -> str:
        """The path of a file relative to the folder."""
        return path.relative_to(self.path).as_posix()

    def _names(self, paths: Iterable[Path]) -> str:
        return ", ".join(map(self.relative, paths))

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of files, by their paths relative to the folder."""
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
    """A question about an image file.

    Args:
        path: the file.
        upright: rotate the picture by its EXIF orientation. Boxes and masks of benchmarks refer to the
            unrotated pixels.
        **rest: the other attributes of the item.
    """
    return Item(load=partial(load_image, path, upright=upright), files=(path,), **rest)
