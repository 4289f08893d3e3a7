"""Rows of annotation files, which may be malformed, and their conversion to questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from rvelens.benchmarks.base import Item
from rvelens.benchmarks.rules import strict
from rvelens.files.atomic import Line, one_line, parse_json, read_lines
from rvelens.files.wording import kind_of_value


@dataclass(frozen=True, eq=False)
class Row:
    """One row of an annotation file.

    Attributes:
        path: the file.
        place: the path of the file below the data folder, with the number of the line, or of the row in
            a JSON array, from 1.
        value: the content; a ValueError if it is not JSON.
    """

    path: Path
    place: str
    value: Any

    def text(self, *keys: str) -> str:
        """The text under the first of some keys that the row has; ValueError if it is not a text."""
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


def read_rows(path: Path, name: str) -> list[Row]:
    """The rows of JSON lines or of a JSON array, with or without a byte order mark.

    Args:
        path: the file.
        name: the name of the file in problems.

    Raises:
        ValueError: text that is not UTF-8, no rows, or an array that is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: expected JSON lines or an array; convert it to UTF-8."
        ) from error
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
    """The questions of rows, and one message about each row that is left out.

    Args:
        rows: the rows of one or more files.
        make: a function from a row to its question. It returns None for a row of another subset, and
            raises ValueError for a malformed row.
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
            problems.append(f"{row.place}: {one_line(error)}")
            continue
        if item is not None:
            items[item.id] = item
    return tuple(items.values()), tuple(problems)


def _checked(row: Row) -> Row:
    if isinstance(row.value, ValueError):
        raise row.value
    if not isinstance(row.value, dict):
        raise ValueError(f"{kind_of_value(row.value)}: expected a JSON object; correct it.")
    return row
