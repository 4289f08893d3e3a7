"""Errors are messages: the page says why something failed, and clears older results."""

from __future__ import annotations

import gradio as gr
import pytest

from rvelens.app.shared import SKIP, catch


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a is b: expected c."), "a is b: expected c."),
        (MemoryError(), "MemoryError"),
        (KeyError("cells"), "expected no such failure; the terminal has more"),
    ],
)
def test_a_failure_is_a_message_and_leaves_no_old_result(error, said, caplog):
    def failing():
        raise error

    first, second, message = catch(failing, ("", SKIP))()
    assert (first, second) == ("", gr.skip())
    assert said in message
    assert ("Traceback" in caplog.text) is isinstance(error, KeyError)


def test_success_clears_the_message():
    assert catch(lambda x: (x,), ("",))("shown") == ("shown", "")
