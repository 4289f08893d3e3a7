"""Commands that cannot finish: a full disk behind the output, Ctrl-C, strengths without bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rvelens import ARSProfile
from rvelens.interventions.methods import METHODS, check_parameters, options_of

ROOT = Path(__file__).parents[2]
SCENE = str(ROOT / "docs" / "images" / "scene.png")
FULL = Path("/dev/full")


def started(*arguments, **streams):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "rvelens", *arguments],
        stderr=subprocess.PIPE, text=True, env=environment, **streams,
    )  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["families"], ["families", "--json"], ["--version"]], ids=str
)
def test_a_full_disk_behind_the_output_is_named(arguments):
    with FULL.open("w") as stdout:
        process = started(*arguments, stdout=stdout)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "the output cannot be written (No space left on device): expected" in errors


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 4.0])
def test_ctrl_c_in_the_first_seconds_ends_in_a_line(seconds):
    process = started("ask", "rvelens/tiny", SCENE, "Is it a cat?", stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    assert errors.count("\n") <= 1
    assert process.returncode in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize("value", [1e308, -1e308, float("inf"), float("nan")])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_takes_a_strength_without_bounds(method, value):
    numbers = [name for name, option in options_of(method).items() if "float" in str(option.hint)]
    profile = ARSProfile.load("rvelens/tiny") if method == "rve" else None
    assert bool(numbers) == (method != "vanilla")
    for name in numbers:
        with pytest.raises(ValueError, match="expected"):
            check_parameters(method, {name: value}, profile)
