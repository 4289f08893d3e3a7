"""Prompts from a model's chat template, which is third-party code with a time limit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from jinja2 import TemplateError

_Value = TypeVar("_Value")
_SECONDS = 10.0


class DeadlineError(Exception):
    """Code that ran longer than its time limit."""


def _within(seconds: float, call: Callable[[], _Value]) -> _Value:
    """What a call returns.

    Looks at the clock before every line of Python that the call runs in this thread; a debugger's or a
    coverage tool's own function is put back afterwards.

    Raises:
        DeadlineError: the call takes longer.
    """
    end = time.monotonic() + seconds

    def check_deadline(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise DeadlineError(f"not done after {seconds:g} seconds")
        return check_deadline

    before = sys.gettrace()
    sys.settrace(check_deadline)
    try:
        return call()
    finally:
        sys.settrace(before)


def from_template(processor: Any, messages: list[dict[str, Any]]) -> str:
    """The text of messages in a processor's chat template, up to where the answer begins.

    Raises:
        ValueError: the template fails, or exceeds the time limit.
    """
    try:
        return _within(
            _SECONDS,
            lambda: processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            ),
        )
    except (DeadlineError, TemplateError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(
            f"the model's chat template fails ({error}): expected a template that makes a prompt; "
            "correct it, or choose another prompt."
        ) from error
