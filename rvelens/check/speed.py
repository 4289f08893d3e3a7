"""Time and memory of a prompt and of generated tokens, unhooked and under hooks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rvelens.check.outcome import describe_error
from rvelens.check.subject import Subject
from rvelens.speed.clock import interleaved
from rvelens.speed.memory import peak_bytes

_TOKENS = 8
_RUNS = 3
COMPILED = "static cache, compiled, RVE"


@dataclass(frozen=True)
class Speed:
    """Time and memory of a setting.

    Attributes:
        setting: what was on.
        prefill: seconds from the prompt to its first token.
        decode: seconds of each further token.
        peak: the most bytes of new tensors while the decoder reads the prompt; None if not measured.
        reason: why it was not measured.
    """

    setting: str
    prefill: float | None = None
    decode: float | None = None
    peak: int | None = None
    reason: str = ""


def measure_speed(subject: Subject, compiled: bool) -> list[Speed]:
    """Medians of three rounds for each setting; what fails has its reason in the place of numbers."""
    device = subject.model.device
    kind = str(device) if device.type == "cuda" else "cpu"
    settings: dict[str, tuple[str, bool]] = {"unhooked": ("last", False)}
    if subject.layers and subject.k:
        settings |= {"RVE": ("last", True), 'RVE, query_rows="all"': ("all", True)}
    rows = [_measured(subject, name, *how, kind) for name, how in settings.items()]
    if not compiled:
        reason = "it is compiled on a GPU, or with --compiled"
        return [*rows, Speed(COMPILED, reason=reason)]
    return [*rows, _compiled(subject, kind)]


@contextmanager
def _setting(subject: Subject, rows: str, steered: bool) -> Iterator[None]:
    model = subject.model
    before = model.query_rows
    try:
        model.query_rows = rows
        with model.hooks(subject.rve() if steered else []):
            yield
    finally:
        model.query_rows = before


def _measured(subject: Subject, name: str, rows: str, steered: bool, kind: str) -> Speed:
    model: Any = subject.model
    try:
        with torch.no_grad(), _setting(subject, rows, steered):
            prefill, decode = _times(lambda n: subject.generate(subject.inputs, n), kind)
            decoder = model.hf_model.get_decoder()
            peak = peak_bytes(model.device, lambda: model(**subject.inputs), decoder)
    except Exception as error:  # out of memory, for example; the other settings are still measured
        return Speed(name, reason=describe_error(error))
    return Speed(name, prefill, decode, peak)


def _compiled(subject: Subject, kind: str) -> Speed:
    options = {"cache_implementation": "static"}
    try:
        with torch.no_grad(), _setting(subject, "last", True):
            run: Callable[[int], Any] = lambda n: subject.generate(subject.inputs, n, **options)  # noqa: E731
            run(_TOKENS)  # compiles
            prefill, decode = _times(run, kind)
    except Exception as error:  # a model or a machine that cannot compile; the reason is shown
        return Speed(COMPILED, reason=describe_error(error))
    return Speed(COMPILED, prefill, decode)


def _times(run: Callable[[int], Any], kind: str) -> tuple[float, float]:
    """Median seconds to the first token, and of each token behind it."""
    seconds = interleaved({"one": lambda: run(1), "more": lambda: run(1 + _TOKENS)}, _RUNS, kind)
    first = statistics.median(seconds["one"])
    return first, max(0.0, statistics.median(seconds["more"]) - first) / _TOKENS
