"""A small benchmark about random pictures, and ways to interrupt a study of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tiny_models import IMAGES, QUESTIONS

from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.rules import strict
from rvelens.stats import bootstrap_each


def item(n: int, picture: int, **changes: Any) -> Item:
    """The n-th question, about one of three pictures of different shapes."""
    fields = {
        "id": f"q{n}", "image": f"p{picture}", "source": f"p{picture}", "text": QUESTIONS[n % 3],
        "truth": bool(n % 2), "reference": None, "group": "", "load": lambda: IMAGES[picture],
    }  # fmt: skip
    return Item(**(fields | changes))


def questions(*items: Item) -> Benchmark:
    """The given items; by default five about three pictures."""
    some = items or tuple(item(n, picture) for n, picture in enumerate((0, 1, 2, 0, 1)))
    return Benchmark("pictures", some, (), strict, {})


def unreadable(n: int, picture: int) -> Item:
    """A question whose picture is not there."""

    def load():
        raise ValueError("no image at p.png: expected a file; check the path.")

    return item(n, picture, image=f"missing{n}", load=load)


class StopError(Exception):
    """What stands for a kill in the middle."""


def interrupt_after(patch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> list[int]:
    """Let a function raise from its `calls`-th call on; returns a list that grows by each call."""
    real, made = getattr(owner, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        if len(made) > calls:
            raise StopError
        return real(*args, **kwargs)

    patch.setattr(owner, name, counted)
    return made


def few_draws(patch: pytest.MonkeyPatch, *modules: Any) -> None:
    """Let intervals of studies come from 60 draws, where tests are about the values alone."""
    for module in modules:
        patch.setattr(module, "bootstrap_each", partial(bootstrap_each, n_resamples=60))


__all__ = ["StopError", "few_draws", "interrupt_after", "item", "questions", "unreadable"]
