"""Several processes of one run: who they are, and that none waits for ever for one that is gone.

Each process writes a file of its own a few times a minute, which says that it works, is done or has
failed. The first process, which scores, reads the others'. This needs the run's folder alone, and
tells a slow process from one that was killed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that scores."""
        return self.rank == 0


def processes() -> Processes:
    """The processes that `torchrun` or `accelerate launch` started, or this one alone.

    Raises:
        ValueError: they do not all come within `MEETING`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    with _meeting():
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=MEETING)
    return Processes(state.process_index, state.num_processes)


def meet(here: Processes) -> None:
    """Wait until every process of the run has come to this line.

    Raises:
        ValueError: one is gone, or does not come within `MEETING`.
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


@contextmanager
def at_work(out: Path, here: Processes) -> Iterator[None]:
    """Tell the first process that this one is alive, until the block ends, and how it ended."""
    if here.count == 1:
        yield
        return
    sign, stop = _sign(out, here.rank), threading.Event()
    out.mkdir(parents=True, exist_ok=True)
    write_text(sign, "0")

    def beat() -> None:
        number = 0
        while not stop.wait(BEAT):
            number += 1
            write_text(sign, str(number))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    how = _FAILED
    try:
        yield
        how = _DONE
    finally:
        stop.set()
        thread.join()
        write_text(sign, how)


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


def _wait_for(sign: Path, rank: int, count: int) -> None:
    seen, since = "", time.monotonic()
    while (said := sign.read_text("utf-8") if sign.exists() else "") != _DONE:
        if said == _FAILED:
            raise ValueError(
                f"process {rank} of {count} failed: expected all to finish; read what it prints, "
                "and run the same command again to resume."
            )
        if said != seen:
            seen, since = said, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise ValueError(
                f"process {rank} of {count} gave no sign of life for {PATIENCE:.0f} seconds: expected "
                "all to finish; it may have been killed; start the same command again, which goes on."
            )
        time.sleep(min(BEAT, 0.2))


def _sign(out: Path, rank: int) -> Path:
    return out / f".process-{rank}"
