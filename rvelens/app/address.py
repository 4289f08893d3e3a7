"""What the tab Ask shows, as the part of an address behind "?", and back.

An address holds what a person typed or chose, and the number of a drawn scene. It never holds an
uploaded picture, its name, or the path of a model or file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from rvelens.app.asking import Comparison, MethodParameters
from rvelens.app.settings import CHOICES, Setting, settings_of
from rvelens.app.shared import FIRST_SCENE, N_SCENES
from rvelens.app.truth import truth_of
from rvelens.app.viewer import ATTENTION, CHANGED, Focus, checked_view

ALL_LAYERS = "all"
_UPLOAD = "upload"


@dataclass(frozen=True)
class Place:
    """What an address says of the tab Ask.

    Attributes:
        scene: number of the drawn scene; None for a picture that the address does not carry.
        question: None for the scene's own.
        methods: those asked for, at most two; None for those of a fresh page.
        settings: by method and parameter, as a form shows them; those at their default are left out.
        model: its name on a hub; "" where the address says none.
    """

    scene: int | None = FIRST_SCENE
    question: str | None = None
    methods: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    view: Focus = field(default_factory=Focus)
    model: str = ""


def link_to(comparison: Comparison, view: Focus) -> str:
    """The address of answers, behind its "?"; a method's settings as "rve.k=3"."""
    truth, view = truth_of(comparison.image, comparison.question), checked_view(view, comparison)
    parts = {
        "model": hub_name(comparison.trace.model),
        "scene": _UPLOAD if truth is None else truth.scene,
        "question": comparison.question,
        "methods": ",".join(comparison.parameters),
        **_settings(comparison.parameters),
        "layer": ALL_LAYERS if view.layer is None else view.layer,
        "step": view.step,
        "show": view.show,
    }
    return urlencode({key: value for key, value in parts.items() if value != ""})


def hub_name(name: str) -> str:
    """The name of a repository on a hub, or of the embedded model; "" for a path."""
    if name.count("/") != 1 or name[0] in "/.~" or "\\" in name or Path(name).exists():
        return ""
    return name


def _settings(parameters: MethodParameters) -> dict[str, Any]:
    """The settings that are not at their defaults."""
    return {
        f"{name}.{setting.name}": parameters[name][setting.name]
        for name in parameters
        for setting in settings_of(name)
        if parameters[name].get(setting.name, setting.default) != setting.default
    }


def read_link(query: str) -> Place:
    """What an address says, with a leading "?" or without one; keys of other tabs are left alone.

    Raises:
        ValueError: a scene, method, layer, token or switch that there is none of.
    """
    parts = dict(parse_qsl(query.removeprefix("?")))
    names = parts.get("methods")
    methods = None if names is None else tuple(filter(None, names.split(",")))
    for name in methods or ():
        _check("method", name, CHOICES)
    if methods is not None and (len(set(methods)) != len(methods) or len(methods) > 2):
        raise ValueError(
            f"the address has methods={names}: expected two different ones at most; correct it."
        )
    layer = parts.get("layer", ALL_LAYERS)
    show = _check("show", parts.get("show", ATTENTION), (ATTENTION, CHANGED))
    return Place(
        None if parts.get("scene") == _UPLOAD else _scene(parts),
        parts.get("question"),
        methods,
        {name: _form(name, parts) for name in CHOICES},
        Focus(
            None if layer == ALL_LAYERS else _number(parts, "layer"), _number(parts, "step"), show
        ),
        parts.get("model", ""),
    )


def _scene(parts: Mapping[str, str]) -> int:
    return _number({"scene": str(FIRST_SCENE), **parts}, "scene", N_SCENES)


def _form(method: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """The values of a method's fields that an address gives."""
    values = {}
    for setting in settings_of(method):
        text = parts.get(f"{method}.{setting.name}")
        if text is not None:
            values[setting.name] = _value(setting, text)
    return values


def _value(setting: Setting, text: str) -> Any:
    if setting.kind == "switch":
        return _check(setting.name, text, ("True", "False")) == "True"
    if setting.kind == "choice":
        return _check(setting.name, text, ("all", "sensitive"))
    return text


def _number(parts: Mapping[str, str], key: str, stop: int = 1_000_000) -> int:
    text = parts.get(key, "0")
    if not (text.isascii() and text.isdigit() and int(text[:8]) < stop):
        raise ValueError(
            f"the address has {key}={text}: expected a number from 0 to {stop - 1}; correct it."
        )
    return int(text)


def _check(key: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(
            f"the address has {key}={text}: expected one of {', '.join(choices)}; correct it."
        )
    return text
