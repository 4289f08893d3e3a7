"""The processes of one run, which wait for each other, but not for a process that has ended.

A few times a minute, each process writes its own file, which says that it is working, done or failed.
Processes that wait for it read this file. This needs only the folder of the run, and distinguishes a
slow process from a killed one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from rvelens.files.atomic import write_text

# Models may load slowly in one process and fast in another.
MEETING = timedelta(minutes=15)
PATIENCE = 300.0  # seconds without a sign of life
BEAT = 5.0  # seconds between two signs

_DONE, _FAILED = "done", "failed"


@dataclass(frozen=True)
class Processes:
    """This process among the processes of a run.

    Attributes:
        rank: its number, from 0.
        count: the number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the process that scores."""
        return self.rank == 0


def processes() -> Processes:
    """The processes that `torchrun` or `accelerate launch` started, or only this one.

    Raises:
        ValueError: not all processes start within `MEETING`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    with _meeting():
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=MEETING)
    return Processes(state.process_index, state.num_processes)


def meet(here: Processes) -> None:
    """Wait until every process of the run has reached this call.

    Raises:
        ValueError: a process has ended, or does not arrive within `MEETING`.
    """
    if here.count > 1:
        with _meeting():
            PartialState().wait_for_everyone()


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        count = os.environ.get("WORLD_SIZE")
        minutes = round(MEETING.total_seconds() / 60)
        raise ValueError(
            f"not all {count} processes of this run started within {minutes} minutes: expected "
            "each to load its model; read what the others print, and start all of them again."
        ) from error


@dataclass
class Sign:
    """The file in which a process tells the others that it is alive, and how far it is.

    Attributes:
        folder: the folder with the files of all processes of a run.
        here: this process.
        step: the number of times that it has waited for the others.
        beats: a counter that grows while it is alive.
    """

    folder: Path
    here: Processes
    step: int = 0
    beats: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def write(self) -> None:
        """Write the next beat."""
        with self._lock:
            self.beats += 1
            write_text(_sign(self.folder, self.here.rank), f"{self.step} {self.beats}")

    def end(self, how: str) -> None:
        """Write how the work ended; nothing is written after this."""
        with self._lock:
            write_text(_sign(self.folder, self.here.rank), how)

    def together(self) -> None:
        """Wait until every process has called this as often as this one; a single process never waits.

        Raises:
            ValueError: one failed, or gave no sign of life for `PATIENCE` seconds.
        """
        if self.here.count == 1:
            return
        with self._lock:
            self.step += 1
        self.write()
        for rank in range(self.here.count):
            _wait_for(_sign(self.folder, rank), rank, self.here.count, self.step)


@contextmanager
def at_work(out: Path, here: Processes) -> Iterator[Sign]:
    """Until the block ends, tell the other processes that this one is alive, and then how it ended."""
    sign = Sign(out, here)
    if here.count == 1:
        yield sign
        return
    stop = threading.Event()
    out.mkdir(parents=True, exist_ok=True)
    sign.write()

    def beat() -> None:
        while not stop.wait(BEAT):
            sign.write()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    how = _FAILED
    try:
        yield sign
        how = _DONE
    finally:
        stop.set()
        thread.join()
        sign.end(how)


def wait_for_others(out: Path, here: Processes) -> None:
    """In the first process, wait until the others are done.

    Raises:
        ValueError: one failed, or gave no sign of life for `PATIENCE` seconds.
    """
    for rank in range(1, here.count):
        _wait_for(_sign(out, rank), rank, here.count)
        _sign(out, rank).unlink(missing_ok=True)
    if here.count > 1:
        _sign(out, 0).unlink(missing_ok=True)


def _wait_for(sign: Path, rank: int, count: int, step: int | None = None) -> None:
    """Wait for the end of a process, or until it has come to a step."""
    last_state, since = "", time.monotonic()
    while (state := sign.read_text("utf-8") if sign.exists() else "") != _DONE:
        if state == _FAILED:
            raise ValueError(
                f"process {rank} of {count} failed: expected all to finish; read what it prints, "
                "and run the same command again to resume."
            )
        if step is not None and state and int(state.split()[0]) >= step:
            return
        if state != last_state:
            last_state, since = state, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise ValueError(
                f"process {rank} of {count} gave no sign of life for {PATIENCE:.0f} seconds, so it "
                "may have been killed: expected all to finish; run the same command again to resume."
            )
        time.sleep(min(BEAT, 0.2))


def _sign(out: Path, rank: int) -> Path:
    return out / f".process-{rank}"
