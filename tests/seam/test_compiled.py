"""Runs `compiled_checks.py` in processes of its own, without jaxtyping's run-time checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "graph",
    "generations",
    "notices or noticed or own or nan or static or prompt or come_back",
)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_compiled_steps(part):
    checks = Path(__file__).with_name("compiled_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    selected = part if part != "graph" else "one_graph"
    ran = subprocess.run(
        [*command, str(checks), "-k", selected],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,  # five minutes on two cores that do nothing else
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert " passed" in ran.stdout


def test_every_check_is_in_a_part():
    text = Path(__file__).with_name("compiled_checks.py").read_text()
    names = [line[4:].split("(")[0] for line in text.splitlines() if line.startswith("def test_")]
    words = ["one_graph", "generations", "noti", "own", "nan", "static", "prompt", "come_back"]
    assert [name for name in names if not any(word in name for word in words)] == []
