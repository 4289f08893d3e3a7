"""Kills, Ctrl-C, full disks and dead processes: what was written stays, and a run goes on from it."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from rvelens.evaluate.store import load_answers
from rvelens.files.atomic import append_lines, cut_torn_line, read_lines, write_json
from tests.torture.fuzz import ANSWER, MANIFEST, Area, survived

EVAL = [
    "eval", "rvelens/tiny", "--benchmark", "action-scenes", "--limit", "24", "--method", "vanilla",
    "rve", "vcd", "--batch-size", "4", "--max-new-tokens", "3", "--json",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "rvelens", *arguments],
        env={**ENVIRONMENT, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Every JSON file of a run."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.json*"))}


def kills(folder: Path, draw: random.Random, times: int) -> tuple[list[str], int]:
    """`eval` killed at random moments and taken up again, against a run that nothing interrupted."""
    began = time.monotonic()
    start(*EVAL, "--out", str(folder / "whole")).communicate()
    whole, took = contents(folder / "whole"), time.monotonic() - began
    failures = []
    for number in range(times):
        out = folder / str(number)
        process = start(*EVAL, "--out", str(out))
        time.sleep(draw.uniform(0.3, 1.0) * took)
        process.kill()
        process.communicate()
        _, errors = start(*EVAL, "--out", str(out)).communicate()
        if contents(out) != whole:
            failures.append(f"{number}: differs: {errors[-200:]}")
    return failures, times


def interrupts(folder: Path, draw: random.Random, times: int) -> tuple[list[str], int]:
    """Ctrl-C in the first seconds: no traceback, exit code 130."""
    failures = []
    for number in range(times):
        process = start(*EVAL, "--out", str(folder / str(number)))
        time.sleep(delay := draw.uniform(1.0, 8.0))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        if process.returncode not in (0, 130) or "Traceback" in errors:
            failures.append(f"after {delay:.1f} s: {process.returncode}, {errors[-200:]}")
    return failures, times


def torn(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """A file of answers cut at every byte, read and continued."""
    run = folder / "pope" / "rve"
    run.mkdir(parents=True)
    write_json(run / "manifest.json", MANIFEST)
    path = run / "answers.jsonl"
    rows = [ANSWER | {"id": str(n), "answer": "é\u2028[/b]"} for n in range(3)]
    append_lines(path, rows)
    data, failures = path.read_bytes(), []
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        what = survived(lambda: load_answers(folder, "pope", "rve"))
        cut_torn_line(path)
        append_lines(path, rows[len(read_lines(path, drop_torn=True)) :])
        if what or path.read_bytes() != data:
            failures.append(f"cut at {cut}: {what or 'differs'}")
    return failures, len(data) + 1


def full_disk(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Files that may not grow beyond some bytes: the error names the file, and the old one stays."""
    failures, times = [], 40
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = folder / "report.json"
    write_json(path, {"old": 1})
    for number in range(times):
        resource.setrlimit(resource.RLIMIT_FSIZE, (draw.randrange(2000), before[1]))
        try:
            write_json(path, {"new": "x" * 5000})
            what = "no error"
        except OSError as error:
            what = "" if str(path) in str(error) else f"no file is named: {error}"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        left = [p.name for p in folder.iterdir()]
        if what or path.read_text() != '{\n "old": 1\n}\n' or left != ["report.json"]:
            failures.append(f"{number}: {what or left}")
    return failures, times


def dead_process(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Two processes started by hand, of which the second is killed: the first says so, and ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = (
        "import sys, rvelens.evaluate.processes as p; p.PATIENCE = 20.0; "
        "from rvelens.cli import main; main(sys.argv[1:])"
    )
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, *EVAL, "--out", str(folder)],
            env={**ENVIRONMENT, **together, "RANK": str(n), "LOCAL_RANK": str(n)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(2)
    ]  # fmt: skip
    answers = folder / "action-scenes" / "rve" / "answers-1.jsonl"
    end = time.monotonic() + 300
    while not answers.exists() and time.monotonic() < end:
        time.sleep(0.01)
    ranks[1].kill()
    ranks[1].communicate()
    try:
        _, errors = ranks[0].communicate(timeout=300)
    except subprocess.TimeoutExpired:
        ranks[0].kill()
        return ["the first process waits on"], 1
    said = "gave no sign of life" in errors or "processes of this run started within" in errors
    return ([] if said and ranks[0].returncode == 2 else [errors[-400:]]), 1


def areas(n_kills: int) -> list[tuple[str, Area]]:
    """The areas; a whole evaluation is killed `n_kills` times."""
    return [
        ("answers cut at any byte", torn),
        ("full disk", full_disk),
        ("Ctrl-C in the first seconds", partial(interrupts, times=n_kills)),
        ("a process of two killed", dead_process),
        ("kills of an evaluation", partial(kills, times=n_kills)),
    ]
