"""Where files may be read and written: names that others wrote, and folders that are the user's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath

from rvelens.files.atomic import locked, parse_json


def path_below(folder: str | Path, name: str) -> Path:
    """The path of a file below a folder, by its name from there; it need not exist.

    Names come from files that anybody may have written, so they lead nowhere else.

    Raises:
        ValueError: the name is a path of its own, goes upwards, or leaves by a symbolic link.
    """
    parts = PurePath(name.replace("\\", "/")).parts
    if PurePath(name).is_absolute() or ".." in parts or not parts or "\0" in name:
        raise ValueError(
            f"{name!r} does not name a file below {folder}: expected a relative path "
            "inside it; correct it."
        )
    path = Path(folder, name)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(
            f"{path} is a link to a file outside of {folder}: expected files below that folder; "
            "pass the folder that holds them, or copy them."
        )
    return path


def slug(name: str) -> str:
    """A model's name as the name of a file or folder; long paths keep their end."""
    return re.sub(r"[^\w.-]+", "--", name).strip("-")[-80:] or "model"


def check_new_folder(folder: str | Path) -> None:
    """Raise ValueError for a folder that is not there and cannot be made: call it before the work."""
    for place in (Path(folder), *Path(folder).parents):
        if place.is_dir():
            return
        if place.is_symlink() or place.exists():
            raise ValueError(
                f"{place} is a file: expected a folder, new or empty, for {folder}; choose another."
            )


def refuse_foreign(paths: Iterable[str | Path], marker: str | Path, key: str) -> None:
    """Raise ValueError where a file that is to be written exists and is somebody else's.

    Call it before the work.

    Args:
        paths: files that are to be written.
        marker: a JSON file that is always written with them; where it is there, they are replaced.
        key: a name that the marker's object holds.
    """
    try:
        stored = parse_json(Path(marker).read_bytes())
    except (OSError, ValueError):
        stored = None
    if isinstance(stored, dict) and key in stored:
        return
    for path in map(Path, paths):
        if path.is_symlink() or path.exists():
            raise ValueError(
                f"{path} exists and was not written by an earlier run of this command: expected a "
                "folder without it; choose another folder, or move the file."
            )


# What a run writes before its first result.
_BEFORE_RESULTS = re.compile(r"manifest\.json|.*\.lock")


@contextmanager
def remove_if_refused(folder: str | Path | None, *, alone: bool = True) -> Iterator[None]:
    """Where the block raises, remove a folder that it made and put no result into.

    New folders above it go too if they are empty then. Manifests and locks are no results.

    Args:
        folder: that the block makes or writes to; None for none.
        alone: whether this process is the only one that writes there; else nothing is removed.
    """
    whole = (
        None if folder is None else Path(folder).absolute()
    )  # the block may change the directory
    places = [] if whole is None else [whole, *whole.parents]
    new = [place for place in places if not (place.is_symlink() or place.exists())]
    try:
        yield
    except Exception:
        if new and alone and new[0].is_dir():
            _remove_without_results(new[0])
            with suppress(OSError, ValueError):  # somebody else has put something there
                for above in new[1:]:
                    _remove_lock(above / f"{new[0].name}.lock")
                    above.rmdir()
        raise


def _remove_lock(lock: Path) -> None:
    if lock.is_file():
        with locked(lock, lock):
            lock.unlink()


def _remove_without_results(folder: Path) -> None:
    inside = sorted(folder.rglob("*"), reverse=True)  # what is in a folder comes before it
    files = [path for path in inside if path.is_symlink() or not path.is_dir()]
    if not all(_BEFORE_RESULTS.fullmatch(path.name) for path in files):
        return
    try:
        with ExitStack() as locks:
            for lock in (path for path in files if path.suffix == ".lock"):
                locks.enter_context(locked(lock, lock))
            for path in files:
                path.unlink()
        for path in [*(path for path in inside if path not in files), folder]:
            path.rmdir()
    except (OSError, ValueError):  # another run is at work there
        return
