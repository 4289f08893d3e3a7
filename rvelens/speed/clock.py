"""Timing of several things in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

Tracker = Callable[[Iterable[Any]], Iterable[Any]]


def quartiles(x: list[float]) -> list[float]:
    """First and third."""
    return [float(torch.tensor(x).quantile(q)) for q in (0.25, 0.75)]


def interleaved(
    settings: dict[str, Callable[[], Any]], runs: int, device: str, progress: Tracker = iter
) -> dict[str, list[float]]:
    """Seconds of each setting in each round, after a round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    order = list(settings)
    for number in progress(range(runs + 1)):
        # Each round starts with another setting, so that none always follows the same one.
        for name in order[number % len(order) :] + order[: number % len(order)]:
            _wait(device)
            start = time.perf_counter()
            settings[name]()
            _wait(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
