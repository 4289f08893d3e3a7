"""Changes which rows of scores and pattern hooks see, until a block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rvelens.model.hooked_lvlm import HookedLVLM


@contextmanager
def query_rows(model: HookedLVLM, rows: Literal["last", "all"]) -> Iterator[None]:
    """Let hooks see "last" or "all" rows until the block ends."""
    before, model.query_rows = model.query_rows, rows
    try:
        yield
    finally:
        model.query_rows = before
