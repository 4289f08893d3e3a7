"""What the class of a hook declares about it, for whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_row_local(hook: Callable[..., Any]) -> bool:
    """Whether a hook's own class declares that it looks at the last row and its image tokens alone.

    A subclass may look at more, so it has to declare it again.
    """
    return bool(vars(type(hook)).get("row_local", False))


def edits_in_place(hook: Any) -> bool:
    """Whether a hook may edit the tensor that it is given.

    A class of hooks that returns a copy, or only reads, declares `in_place = False`. The declaration
    holds for its own `__call__`: a subclass that overrides `__call__` has to declare it again.
    """
    for kind in type(hook).__mro__:
        if "in_place" in vars(kind):
            return bool(vars(kind)["in_place"])
        if "__call__" in vars(kind):
            return True
    return True
