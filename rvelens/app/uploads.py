"""Folders of uploads: each server has its own, and what a killed server left goes at the next start."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rvelens.files.atomic import locked

_PREFIX = "rvelens-app-"
_LOCK = "server.lock"
# A server that is just starting has made its folder and not its lock yet.
_STARTING = 60.0  # seconds


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder for uploads until the block ends; first, those of servers that died are removed."""
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, locked(Path(folder, _LOCK), folder):
        uploads = Path(folder, "uploads")
        uploads.mkdir()
        yield uploads


def remove_abandoned() -> None:
    """Remove this user's folders of uploads whose server is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _is_ours(folder) and _is_abandoned(folder):
                shutil.rmtree(folder)


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder of this user, and no link."""
    status = folder.lstat()
    owner = getattr(os, "getuid", lambda: status.st_uid)()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner


def _is_abandoned(folder: Path) -> bool:
    lock = folder / _LOCK
    if not lock.exists():
        return time.time() - folder.stat().st_mtime > _STARTING
    try:
        with locked(lock, folder):  # the system lets go of it when a process dies
            return True
    except ValueError:
        return False
