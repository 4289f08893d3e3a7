"""`rvelens app`: what is refused before a server starts, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rvelens.app.page import free_port
from rvelens.cli import main


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["app", *map(str, arguments)])
    return end.value.code, capsys.readouterr().err


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("rvelens.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, error = said(capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert "pip install 'rvelens[app]'" in error


def test_a_model_that_fails_to_load_is_one_sentence(capsys, tmp_path):
    code, error = said(capsys, tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "cannot be loaded" in error


def test_it_prints_its_address_and_ends_at_ctrl_c_without_leaving_files(tmp_path):
    port = free_port()
    run = subprocess.Popen(
        [sys.executable, "-m", "rvelens", "app", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.stdout is not None
    said = run.stdout.readline()
    assert f" http://127.0.0.1:{port}/?token=" in said
    with httpx.Client(timeout=60) as client:
        assert client.get(said.split()[3], follow_redirects=True).status_code == 200
        assert client.get(f"http://127.0.0.1:{port}/").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 403
    assert [path.name for path in Path(tmp_path).glob("rvelens-app-*")]
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert "Traceback" not in errors
    assert not list(Path(tmp_path).glob("rvelens-app-*"))
