"""The parameters of a method: read off its function, and checked against it before a model loads."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from beartype.door import is_bearable

from rvelens.files.wording import kind_of_value


@dataclass(frozen=True)
class Option:
    """A parameter of a method.

    Attributes:
        hint: its type; Any where none is declared.
        default: `inspect.Parameter.empty` where it must be given.
    """

    hint: Any
    default: Any

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def read_options(name: str, function: Callable[..., Any]) -> dict[str, Option]:
    """The parameters that settings are given for: all but the first, the model, and `profile`.

    Args:
        name: of the method.
        function: what makes it.

    Raises:
        ValueError: a type that cannot be read.
    """
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise ValueError(
            f"{name} has a type that cannot be read ({error}): expected types that its module imports; "
            "correct it, or leave the type out."
        ) from error
    _, *parameters = inspect.signature(function).parameters.values()
    return {
        p.name: Option(hints.get(p.name, Any), p.default) for p in parameters if p.name != "profile"
    }


def settled(name: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter, as given or by default.

    Raises:
        ValueError: one that must be given is not.
    """
    missing = [n for n, option in options.items() if option.is_required and n not in given]
    if missing:
        raise ValueError(
            f"method {name!r} without {', '.join(missing)}: expected a value; give it, on the command "
            f"line as --set METHOD.{missing[0]}=VALUE."
        )
    return {n: given.get(n, option.default) for n, option in options.items()}


def check_options(
    name: str, options: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters as a method takes them: whole numbers serve as real ones.

    Raises:
        ValueError: an unknown parameter, or a value of another type.
    """
    return {n: _value(name, n, value, options) for n, value in given.items()}


def _value(method: str, name: str, value: Any, options: Mapping[str, Option]) -> Any:
    if name not in options:
        near = difflib.get_close_matches(name, options, n=1, cutoff=0.0)
        raise ValueError(
            f"method {method!r} has no parameter {name!r}: expected "
            + (
                f"{', '.join(options)}; did you mean {near[0]!r}?"
                if near
                else "none; leave it out."
            )
        )
    hint = options[name].hint
    if hint is Any:
        return value
    if type(value) is int and is_bearable(1.0, hint) and abs(value) < 2**53:
        value = float(value)
    fits = is_bearable(value, hint) and not (type(value) is bool and hint is not bool)
    if not fits:
        wanted = getattr(hint, "__name__", None) or str(hint)
        quoted = f", on the command line '\"{value}\"'" if is_bearable("", hint) else ""
        raise ValueError(
            f"method {method!r}: {name}={brief(value)} is {kind_of_value(value)}: expected "
            f"{wanted}; pass such a value{quoted}."
        )
    return value
