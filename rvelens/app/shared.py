"""What the tabs share: the picture field, scenes to click on, and mistakes as messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib import resources
from typing import Any

import gradio as gr
from PIL import Image

from rvelens.app.markup import escape, message
from rvelens.benchmarks.action_scenes import Question, contrastive_pairs, make_questions
from rvelens.heads.pair import ContrastivePair
from rvelens.studies.cases.pictures import small, to_data_uri

N_SCENES = 8
# The scene of a fresh page: rve changes its answer.
FIRST_SCENE = 2
# A field for a path: one line that scrolls, and a row of its own where the page is narrow.
PATH: Any = {"max_lines": 1, "min_width": 240}
# One handler for clicks on whatever carries the attribute, also after the content has changed.
_CLICKS = """element.addEventListener('click', event => {
  const hit = event.target.closest('[data-%s]');
  if (hit) trigger('select', {value: hit.dataset.%s});
});"""


def script(name: str) -> str:
    """A script of the page, from `rvelens/data`."""
    return resources.files("rvelens").joinpath(f"data/{name}").read_text(encoding="utf-8")


def picture(label: str, value: Any, webcam: bool = False) -> gr.Image:
    """An image field that opens with `value` and hands on the file as it is.

    The webcam is offered only where it was asked for.
    """
    field = gr.Image(
        value,
        label=label,
        type="filepath",
        image_mode=None,
        format="png",  # a scene is handed to the model through this field: lossless
        sources=["upload", "clipboard", "webcam"] if webcam else ["upload", "clipboard"],
        buttons=["fullscreen"],
        height=300,
        elem_classes="rv-picture",
    )
    # Gradio's own opens the file, and fails without a word to the person if it is no picture.
    # A subclass would say the same, but Gradio writes a .pyi beside each.
    field.preprocess = lambda payload: None if payload is None else payload.path
    return field


@cache
def scenes() -> list[Question]:
    """Questions about action scenes, two of each group."""
    return make_questions("test", N_SCENES)


@cache
def scene_pairs() -> list[ContrastivePair]:
    """Contrastive pairs about action scenes."""
    return contrastive_pairs("test", N_SCENES)


def clickable(name: str, value: str | Callable[[], str] = "", **more: Any) -> gr.HTML:
    """HTML whose elements with `data-{name}` raise `select` with that value when clicked."""
    return gr.HTML(value, js_on_load=_CLICKS % (name, name), **more)


def thumbnails(images: Sequence[Any], captions: Sequence[str]) -> str:
    """Pictures to click on, numbered by `data-scene`."""
    buttons = [
        f'<button type="button" data-scene="{n}" title="{escape(caption)}">'
        f'<img src="{to_data_uri(small(image, 160))}" alt="{escape(caption)}"></button>'
        for n, (image, caption) in enumerate(zip(images, captions, strict=True))
    ]
    return f'<div class="rv-scenes">{"".join(buttons)}</div>'


def in_turn(queue: str) -> Any:
    """Arguments of events that run one at a time, in their order.

    A slow event that began earlier, such as the example, never writes over what a person opened later.
    """
    return {"concurrency_id": queue, "concurrency_limit": 1}


# Of events that use the model.
IN_TURN = in_turn("model")


# An output that stays as it is.
SKIP: Any = gr.skip()


def clear_unless_about(
    picture_of_results: Image.Image | None, new: Image.Image | None, empty: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Outputs that clear the results, or that leave them if they are about the new picture.

    A click on a button right after the choice of a picture can arrive before the clearing.

    Args:
        picture_of_results: the picture that the results are about; None if there are none.
        new: the picture that was chosen; None if there is none.
        empty: the results when nothing was asked.
    """
    if picture_of_results is None or new is None or picture_of_results.size != new.size:
        return empty
    is_same = picture_of_results.convert("RGB").tobytes() == new.convert("RGB").tobytes()
    return (SKIP,) * len(empty) if is_same else empty


def catch(
    function: Callable[..., Sequence[Any]], otherwise: Sequence[Any]
) -> Callable[..., tuple[Any, ...]]:
    """The function with a message as one more output: "" or, where it fails, why.

    Args:
        function: gives a value for each of the other outputs.
        otherwise: their values where it fails. What an earlier success showed does not stay beside
            the message, unless it is still true: `SKIP`.
    """

    @wraps(function)
    def attempt(*arguments: Any) -> tuple[Any, ...]:
        try:
            return (*function(*arguments), "")
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            text = message(str(error) or type(error).__name__)
        except Exception as error:  # a person on the page sees no terminal
            logging.getLogger(__name__).exception("the explorer failed")
            text = message(
                f"{type(error).__name__}: {error}: expected no such failure; the terminal has more."
            )
        return (*otherwise, text)

    return attempt
