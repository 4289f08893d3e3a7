"""Fields for the settings of all methods, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from rvelens.app.address import Place
from rvelens.app.layout import folded
from rvelens.app.markup import escape
from rvelens.app.settings import CHOICES, Setting, read_form, settings_of
from rvelens.app.shared import SKIP

NONE = "none"
_NAMES = {"k": "K", "max_entropy": "max entropy", "box": "box (x0,y0,x1,y1 in pixels)"}
_HINTS = {
    "layers": "'3-5', '0,2', auto or preset",
    "k": "5",
    "alpha": "family's",
    "box": "draw it on a picture",
}


def method_fields(method: gr.Dropdown, second: gr.Dropdown, chosen: tuple[str, str]) -> list[Any]:
    """The fields of all methods, in the order of `CHOICES`, those of the chosen two on show."""
    fields: list[Any] = []
    with folded("Settings"):
        shown = gr.HTML(_alone(*chosen), elem_classes="rv-style")
        for name in CHOICES:
            with gr.Column(elem_id=f"settings-{name}", elem_classes="rv-settings"):
                gr.HTML(f"<h3>{escape(name)}</h3>")
                with gr.Row():
                    fields += [_field(setting) for setting in settings_of(name)]
    gr.on([method.change, second.change], _alone, [method, second], shown, queue=False)
    return fields


def _alone(*methods: str) -> str:
    """A style sheet that hides the settings of other methods; what was written there stays."""
    others = "".join(f":not(#settings-{name})" for name in methods)
    return f"<style>.rv-settings{others}{{display:none}}</style>"


def slot(method: str) -> slice:
    """Where a method's fields stand among those of all methods."""
    counts = [len(settings_of(name)) for name in CHOICES]
    start = sum(counts[: CHOICES.index(method)])
    return slice(start, start + len(settings_of(method)))


def _field(setting: Setting) -> Any:
    label, hint = _NAMES.get(setting.name, setting.name), _HINTS.get(setting.name)
    more: Any = {"label": label, "value": setting.default, "min_width": 110}
    wide = more | {"min_width": 150}  # narrower, a switch has no room for its label
    if setting.kind == "choice":
        return gr.Radio(["all", "sensitive"], **wide)
    if setting.kind == "switch":
        return gr.Checkbox(**wide)
    if setting.kind == "text" or setting.default is None:  # a number field would show 0 for none
        return gr.Textbox(**more, max_lines=1, placeholder=hint)
    return gr.Number(**more, precision=0 if setting.kind == "whole" else None)


def wanted_of(first: str, second: str, values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The parameters of the chosen methods.

    Raises:
        ValueError: the same method twice, or what should be a number is none.
    """
    if first == second:
        raise ValueError(
            f"both methods are {first}: expected two different ones; choose another beside it."
        )
    names = [name for name in (first, second) if name != NONE]
    return {name: read_form(settings_of(name), values[slot(name)]) for name in names}


def fields_of(place: Place) -> list[Any]:
    """The values of all settings' fields that an address gives; the others stay."""
    return [
        place.settings.get(name, {}).get(setting.name, SKIP)
        for name in CHOICES
        for setting in settings_of(name)
    ]
