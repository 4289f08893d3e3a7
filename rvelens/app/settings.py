"""Parameters of methods as fields of a form, and what is in these fields as parameters."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvelens.interventions.methods import METHODS
from rvelens.interventions.options import read_options
from rvelens.interventions.region import region_method

# A rectangle of the picture as a method; it holds for one picture, so `METHODS` lacks it.
REGION = "region"
# What a person can choose to see beside the plain model.
CHOICES = (*list(METHODS)[1:], REGION)
_NUMBERS: Mapping[str, Callable[[Any], float | int]] = {"real": float, "whole": int}


@dataclass(frozen=True)
class Setting:
    """A parameter of a method, as a form shows it.

    Attributes:
        kind: "text", "switch", "real" or "whole" number, or "choice".
        default: None where the model or its family decides.
    """

    name: str
    kind: str
    default: Any


def settings_of(method: str) -> list[Setting]:
    """The parameters of a method, in their order; a region's box is text, "x0,y0,x1,y1" in pixels."""
    function = region_method if method == REGION else METHODS[method]
    options = [
        Setting(name, _kind(name, option.hint), option.default)
        for name, option in read_options(method, function).items()
        if not option.is_required  # a region's box, its grid and the size of its picture
    ]
    return [Setting("box", "text", ""), *options] if method == REGION else options


def _kind(name: str, hint: Any) -> str:
    kinds = set(typing.get_args(hint)) or {hint}
    if name == "scope":
        return "choice"
    if str in kinds:
        return "text"
    if bool in kinds:
        return "switch"
    return "whole" if int in kinds else "real"


def read_form(settings: Sequence[Setting], values: Sequence[Any]) -> dict[str, Any]:
    """A form's values as a method's parameters; empty fields are left to their defaults.

    Raises:
        ValueError: what should be a number is none.
    """
    parameters: dict[str, Any] = {}
    for setting, value in zip(settings, values, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        parameters[setting.name] = _number(setting, value) if setting.kind in _NUMBERS else value
    return parameters


def _number(setting: Setting, value: Any) -> float | int:
    try:
        return _NUMBERS[setting.kind](value)
    except ValueError as error:
        raise ValueError(
            f"{setting.name}={value!r}: expected a {setting.kind} number; correct it, or "
            "leave it empty."
        ) from error
