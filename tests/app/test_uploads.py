"""Folders of uploads: those of a killed server go at the next start, those of a live one stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from rvelens.app.uploads import remove_abandoned, upload_folder

_SERVER = """
import sys, time
from rvelens.app.uploads import upload_folder
with upload_folder() as folder:
    (folder / "private.png").write_bytes(b"a picture")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_uploads_of_a_killed_server_go_at_the_next_start(temporary):
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    with server:
        try:
            assert server.stdout.readline().strip()
            (left,) = temporary.glob("rvelens-app-*/uploads/private.png")
            remove_abandoned()
            assert left.exists()  # its server lives
        finally:
            server.send_signal(signal.SIGKILL)
    assert left.exists()
    with upload_folder() as mine:
        assert not left.parents[1].exists()
        assert mine.is_dir()
    assert list(temporary.iterdir()) == []


def test_what_is_not_a_folder_of_uploads_stays(temporary):
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (temporary / "rvelens-app-link").symlink_to(elsewhere)
    (temporary / "rvelens-app-file").write_text("mine")
    (temporary / "rvelens-app-starting").mkdir()  # no lock yet
    (temporary / "rvelens-app-old").mkdir()
    hour = time.time() - 3600
    os.utime(temporary / "rvelens-app-old", (hour, hour))
    remove_abandoned()
    left = {path.name for path in temporary.iterdir()}
    assert left == {"elsewhere", "rvelens-app-link", "rvelens-app-file", "rvelens-app-starting"}
    assert (elsewhere / "file").exists()
