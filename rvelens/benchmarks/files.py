"""Reading what was published: files found by name below one folder, rows that may be malformed."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from reprlib import repr as brief
from typing import Any

from rvelens.benchmarks.base import Item
from rvelens.benchmarks.rules import strict
from rvelens.files.atomic import Line, parse_json, read_lines
from rvelens.files.paths import below
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
                "as --data."
            )
        if not data.is_dir():
            raise ValueError(
                f"no folder {data}: expected the folder with the files of {benchmark}; check the path."
            )
        by_name: dict[str, list[Path]] = defaultdict(list)
        seen = set()
        for place, folders, names in os.walk(data, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # a link to a folder further up would never end
                folders.clear()
                continue
            seen.add(real)
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
        wanted = _parts(name)
        found = self.by_name.get(wanted[-1], []) if wanted else []
        found = [path for path in found if path.parts[-len(wanted) :] == wanted]
        inside = [path for path in found if self._is_inside(path)]
        if found and not inside:
            below(self.path, self.relative(found[0]))  # says why
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
        found = next((paths for paths in map(self.find, names) if paths), [])
        if not found:
            raise ValueError(
                f"no {' or '.join(names)} below {self.path}: expected the published file; put it there."
            )
        if near is not None:
            closest = max(_shared(path, near) for path in found)
            found = [path for path in found if _shared(path, near) == closest]
        if len({sha256(path) for path in found}) > 1:
            raise ValueError(
                f"{len(found)} different files {names[0]} below {self.path} "
                f"({self._names(found)}): expected only one; pass a folder that holds one of them."
            )
        return found[0]

    def picture(
        self,
        name: str,
        hints: Collection[str] = (),
        fits: Callable[[set[str]], bool] = lambda told: True,
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
        found = self.find(name) or self.find(parts[-1])
        found = [path for path in found if fits(words(self.relative(path.parent)))]
        if len(found) > 1:
            best = max(self._matches(path, hints) for path in found)
            found = [path for path in found if self._matches(path, hints) == best]
        if len(found) > 1 and len({sha256(path) for path in found}) > 1:
            raise ValueError(
                f"image {name!r} matches {len(found)} different files ({self._names(found)}): "
                "expected exactly one; remove the others."
            )
        return found[0] if found else self.path / parts[-1]

    def _matches(self, path: Path, hints: Collection[str]) -> int:
        return len(set(hints) & words(self.relative(path.parent)))

    def read(self, path: Path) -> list[Row]:
        """The rows of JSON lines or of a JSON array, with or without a byte order mark.

        Raises:
            ValueError: not UTF-8, no rows, an array that is not JSON, or a link out of the folder.
        """
        below(self.path, self.relative(path))
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 text: expected JSON lines or an array; convert it to UTF-8."
            ) from error
        name = self.relative(path)
        if text.lstrip().startswith("["):
            array = enumerate(_array(path, text), start=1)
            rows = [Row(path, f"{name} row {n}", value) for n, value in array]
        else:
            lines = [line for line in read_lines(path) if not line.is_blank]
            rows = [Row(path, f"{name} line {line.number}", _line(line)) for line in lines]
        if not rows:
            raise ValueError(
                f"{path} is empty: expected JSON lines or an array of rows; download it again."
            )
        return rows

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


@dataclass(frozen=True, eq=False)
class Row:
    """One row of an annotation file.

    Attributes:
        path: the file.
        place: its name below the data folder, with the number of the line, or of the row in a JSON
            array, from 1.
        value: what stands there; a ValueError where it is not JSON.
    """

    path: Path
    place: str
    value: Any

    def text(self, *keys: str) -> str:
        """The text under the first of some keys that the row has; ValueError if it is not one."""
        value = self._value(keys)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{keys[0]!r} is {brief(value)}: expected a non-empty string; correct the row."
            )
        return _utf8(value.strip(), keys[0])

    def id(self, *keys: str) -> str:
        """The id under the first of some keys that the row has, a text or an integer."""
        value = self._value(keys)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ValueError(
                f"{keys[0]!r} is {brief(value)}: expected a string or a number; correct the row."
            )
        return _utf8(str(value).strip(), keys[0])

    def truth(self, *keys: str) -> bool:
        """The label under the first of some keys that the row has."""
        return yes_or_no(self._value(keys), keys[0])

    def _value(self, keys: Iterable[str]) -> Any:
        return next((self.value[key] for key in keys if key in self.value), None)


def _utf8(text: str, key: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{key!r} is {text!r}: expected valid UTF-8; correct the row.")
    return text


def yes_or_no(label: Any, key: str) -> bool:
    """Whether a label says yes, in any case and punctuation; ValueError if it says neither."""
    answer = strict(label) if isinstance(label, str) else None
    if answer is None:
        raise ValueError(f"{key!r} is {brief(label)}: expected yes or no; correct the row.")
    return answer


def _array(path: Path, text: str) -> list[Any]:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}): expected an array of rows; download it again."
        ) from error


def _line(line: Line) -> Any:
    try:
        return line.value()
    except ValueError as error:
        return ValueError(f"not JSON ({error}): expected one object per line; correct the line.")


def collect(
    rows: Iterable[Row], make: Callable[[Row], Item | None]
) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Questions of rows, and one line about each row that is left out.

    Args:
        rows: of one or more files.
        make: a row's question; None if it is of another subset; ValueError if it is malformed.
    """
    items: dict[str, Item] = {}
    problems = []
    for row in rows:
        try:
            item = make(_checked(row))
            if item is not None and item.id in items:
                raise ValueError(
                    f"id {item.id!r} occurs twice: expected unique ids; remove one of the rows."
                )
        except ValueError as error:
            problems.append(f"{row.place}: {' '.join(str(error).split())}")
            continue
        if item is not None:
            items[item.id] = item
    return tuple(items.values()), tuple(problems)


def _checked(row: Row) -> Row:
    if isinstance(row.value, ValueError):
        raise row.value
    if not isinstance(row.value, dict):
        raise ValueError(f"a {type(row.value).__name__}: expected a JSON object; correct it.")
    return row


def photograph(path: Path, **rest: Any) -> Item:
    """A question about an image file as it is; `rest` are the other attributes of the item."""
    return Item(load=partial(load_image, path, upright=False), files=(path,), **rest)
