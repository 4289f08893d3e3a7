"""Files that survive interruptions: JSON, JSON lines, locks, and atomic replacement.

Every file that this package writes as text, JSON or CSV is written here. A reader never sees half of a
replaced file. A line that an interruption cut short is dropped when the file is read or continued.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

_SCRATCH_ENDING = ".partial"
# Some file systems cannot flush a folder; the file itself is safe all the same.
_NO_FOLDER_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def one_line(error: BaseException) -> str:
    """What an error says, on one line, as a file of lines keeps it."""
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Line:
    """A line of a file; as text, its place: "answers.jsonl line 3".

    Attributes:
        path: the file.
        number: of the line, from 1.
        content: the bytes before the line end.
    """

    path: Path
    number: int
    content: bytes

    def __str__(self) -> str:
        return f"{self.path} line {self.number}"

    @property
    def is_blank(self) -> bool:
        """Whether the line holds nothing but white space."""
        return not self.content.strip()

    def value(self) -> Any:
        """The value of the line's JSON; raises what `parse_json` raises."""
        return parse_json(self.content)


def read_lines(path: str | Path, *, drop_torn: bool = False) -> list[Line]:
    """The lines of a file, blank ones included.

    Args:
        path: the file.
        drop_torn: leave out what follows the last line end, which an interrupted write left.
    """
    path = Path(path)
    # Not splitlines: it also breaks at characters that JSON allows inside a text.
    pieces = read_bytes(path).split(b"\n")
    lines = pieces[:-1] if drop_torn else pieces
    return [Line(path, number, content) for number, content in enumerate(lines, start=1)]


class NotRegularError(ValueError):
    """A pipe, a device or a socket where a file is expected."""


def check_regular(path: str | Path) -> None:
    """Raise NotRegularError for what is there and is no file: reading a pipe may never end.

    Folders and what is not there pass: opening them raises an error of its own.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotRegularError(
            f"{path} is a pipe, a device or a socket: expected a regular file; choose another."
        )


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        NotRegularError: it is a pipe, a device or a socket.
        OSError: it cannot be read; the error names it.
    """
    check_regular(path)
    return Path(path).read_bytes()


def append_lines(path: str | Path, rows: Iterable[Any]) -> None:
    """Append values as JSON lines in one write, which is on disk when this returns.

    Raises:
        ValueError: a value that JSON cannot hold, such as NaN.
        OSError: the file cannot be written; the error names it.
    """
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    _append(Path(path), "".join(line + "\n" for line in lines).encode())


def torn_line(path: str | Path) -> bytes:
    """What follows the last line end of a file; empty where nothing does, or there is no file."""
    path = Path(path)
    return read_bytes(path).rpartition(b"\n")[2] if path.exists() else b""


def cut_torn_line(path: str | Path) -> None:
    """Remove what an interrupted write left after the last line end."""
    torn = torn_line(path)
    if torn:
        os.truncate(path, Path(path).stat().st_size - len(torn))


def end_last_line(path: str | Path) -> None:
    """Add the line end that a whole last line lacks."""
    if torn_line(path):
        _append(Path(path), b"\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, with or without a byte order mark; NaN and infinity are no JSON.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    try:
        whole = text if isinstance(text, str) else text.decode("utf-8-sig")
        return json.loads(whole, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} at {line}column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except NotFiniteError:
        raise
    except ValueError as error:  # Python's limit on digits
        raise ValueError("a number that is too long") from error


class NotFiniteError(ValueError):
    """A number of a JSON text that is none, or beyond the largest."""


def _no_number(text: str) -> float:
    raise NotFiniteError(f"{text}, which is not a number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def read_json(path: Path | Traversable, expected: str = "a JSON file; restore it") -> Any:
    """The value of a JSON file.

    Args:
        path: the file.
        expected: what the error says was expected, and what to do.

    Raises:
        ValueError: the file is not JSON.
        OSError: the file cannot be read; the error names it.
    """
    try:
        return parse_json(read_bytes(path) if isinstance(path, Path) else path.read_bytes())
    except NotRegularError:
        raise
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): expected {expected}.") from error


def as_json(data: Any) -> Any:
    """A value as it is after JSON: tuples are lists, keys are texts."""
    return json.loads(json.dumps(data))


def write_json(path: str | Path, data: Any, *, indent: int = 1) -> None:
    """Replace a file by a value as JSON, as `write_bytes` does.

    Raises:
        ValueError: a value that JSON cannot hold, such as NaN.
    """
    write_text(path, json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Replace a file by a text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file whole or not at all; the new one is on disk when this returns.

    The bytes go to a scratch file in the same folder first, whose name no other process uses. If the
    write fails, the old file stays and the scratch file goes. A symbolic link is itself replaced.

    Raises:
        ValueError: the path is a folder or a device.
        OSError: the file cannot be written; the error names it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{path} is not a regular file: expected a regular file or a new name; choose another."
        )
    scratch = path.with_name(f".{secrets.token_hex(8)}{_SCRATCH_ENDING}")
    with _naming(path):
        try:
            with _create(scratch) as file:
                if path.is_file():
                    os.chmod(scratch, stat.S_IMODE(path.stat().st_mode))
                _write(file, data)
            os.replace(scratch, path)
        except BaseException:
            with suppress(OSError):
                scratch.unlink()
            raise
        _sync_folder(path.parent)


def is_scratch(path: Path) -> bool:
    """Whether a file is what an interrupted `write_bytes` left."""
    return path.name.startswith(".") and path.name.endswith(_SCRATCH_ENDING)


@contextmanager
def locked(lock: str | Path, path: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file while a file or folder is written.

    Args:
        lock: the lock file, made if it is not there.
        path: what is written, as the error names it.
        wait: wait for another process that holds the lock.

    Raises:
        ValueError: another process holds the lock, and `wait` is false; or the lock is a link.
        OSError: the lock cannot be written.
    """
    lock = Path(lock)
    if lock.is_symlink():
        raise ValueError(f"{lock} is a link: expected a lock file of this program; remove it.")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()  # raises where the folder is read-only; FileLock would wait for ever
    try:
        with FileLock(lock, timeout=-1 if wait else 0):
            yield
    except Timeout as error:
        raise ValueError(
            f"{path} is being written by another run: expected one at a time; wait for it, or "
            "choose another."
        ) from error


def _append(path: Path, data: bytes) -> None:
    with _naming(path), path.open("ab") as file:
        _write(file, data)


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _create(path: Path) -> BinaryIO:
    """Open a file that does not exist yet; never one that a link leads to."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _sync_folder(folder: Path) -> None:
    """Put a folder's list of names on disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error name this file, and not its scratch file or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
