"""The local server: it starts on a slow machine, and Ctrl-C takes its uploads away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

# Gradio's own check of its address gives up where the first page takes 3 seconds.
_SLOW = """
import gradio
gradio.networking.url_ok = lambda url: False
from rvelens.cli import main
main(['app', '--port', '0'])
"""


def test_a_slow_machine_is_waited_for_and_uploads_are_removed(tmp_path):
    app = subprocess.Popen(
        [sys.executable, "-c", _SLOW],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    with app:
        try:
            said = app.stdout.readline()
            assert said.startswith("rvelens explorer on http://127.0.0.1:")
            files = {"files": ("a.png", b"a picture", "image/png")}
            address, _, query = said.split()[3].partition("?")
            sent = httpx.post(f"{address}gradio_api/upload?{query}", files=files, timeout=60)
            (path,) = map(Path, sent.raise_for_status().json())
            assert path.read_bytes() == b"a picture"
            assert path.is_relative_to(tmp_path)
        finally:
            app.send_signal(signal.SIGINT)
        assert app.wait(60) == 0
    assert list(tmp_path.glob("rvelens-app-*")) == []
