"""Errors are messages: the page says why something failed, and clears older results."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from rvelens.app import tab_ask, tab_heads
from rvelens.app.asking import Comparison
from rvelens.app.heads import PairAttention
from rvelens.app.shared import SKIP, catch, scene_pairs, scenes


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


def click(number):
    """The event of a click on a scene."""
    return gr.EventData(None, {"value": str(number)})


class AnswersAbout(Comparison):
    """Answers of which only the picture matters."""

    image: Any = None

    def __init__(self, image):
        object.__setattr__(self, "image", image)


class AttentionTo(PairAttention):
    """Attention of which only the picture matters."""

    def __init__(self, image):
        object.__setattr__(self, "image", image)


@pytest.mark.parametrize(("tab", "images"), [
    (tab_ask, lambda: [scene.image for scene in scenes()]),
    (tab_heads, lambda: [pair.image for pair in scene_pairs()]),
])  # fmt: skip
def test_results_about_the_new_picture_are_not_cleared(tab, images, tmp_path):
    """A click on a button right behind the choice of a picture can arrive before the clearing."""
    drawn = images()
    by_click = tab._clear_before_scene if tab is tab_ask else tab._clear_before_pair
    shown = AnswersAbout if tab is tab_ask else AttentionTo
    assert set(map(repr, by_click(shown(drawn[1]), click(1)))) == {repr(SKIP)}
    assert by_click(shown(drawn[2]), click(1)) == tab._nothing()
    assert by_click(None, click(1)) == tab._nothing()
    path = tmp_path / "1.png"
    drawn[1].save(path)
    assert set(map(repr, tab._clear_before_upload(shown(drawn[1]), str(path)))) == {repr(SKIP)}
    for image, at in ((drawn[2], str(path)), (drawn[1], None), (drawn[1], str(tmp_path / "2.png"))):
        assert tab._clear_before_upload(shown(image), at) == tab._nothing()
