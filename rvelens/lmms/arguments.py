"""What `--model_args` may say: which model, which method, and the method's parameters."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rvelens.files.wording import kind_of_value

PREFIX = "method."


@dataclass(frozen=True)
class Arguments:
    """A model under a method, as text names it.

    Attributes:
        pretrained: hub name, folder or rvelens/tiny.
        method: one of `rvelens.interventions.methods.METHODS`.
        parameters: of the method.
        profile: a file that `rvelens scan` wrote, or "published"; for rve.
        prompt: a preset of the family, or a template.
        seed: of noise that methods add.
        family, dtype, device_map: as for `rvelens eval`.
        batch_size: questions per forward.
    """

    pretrained: str
    method: str = "vanilla"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    prompt: str = "chat"
    seed: int = 55
    family: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    batch_size: int = 8


def parse(keywords: Mapping[str, Any]) -> Arguments:
    """Arguments from lmms-eval's keywords, which it has cut at commas and read numbers from.

    A parameter of the method is `method.alpha=0.1`; several at once are `method_args={"alpha": 0.1}`.
    Values are read as JSON where they are JSON, so that `method.layers=[9,14]` is a list.

    Args:
        keywords: `--model_args`, and batch_size, device and max_batch_size from the command line.

    Raises:
        ValueError: no model, an argument nobody knows, or one of another type. The method and its
            parameters are for `rvelens.interventions.methods.make_method` to check.
    """
    rest = {name: value for name, value in keywords.items() if value is not None}
    parameters = _json_object(rest.pop("method_args", {}))
    for name in [name for name in rest if name.startswith(PREFIX)]:
        parameters[name.removeprefix(PREFIX)] = _value(rest.pop(name))
    device = rest.pop("device", None)
    rest.pop("max_batch_size", None)
    if "batch_size" in rest:
        rest["batch_size"] = _batch_size(rest["batch_size"])
    if device is not None:
        rest.setdefault("device_map", str(device))
    names = [attribute.name for attribute in fields(Arguments) if attribute.name != "parameters"]
    for name, value in rest.items():
        _check(name, value, names)
    if "pretrained" not in rest:
        raise ValueError(
            "--model_args name no model: expected pretrained=MODEL, a name on the Hub, a folder or "
            "rvelens/tiny; add it."
        )
    return Arguments(**rest, parameters=parameters)


def _value(text: Any) -> Any:
    """A value as JSON says it, or the text itself."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return text


def _json_object(text: Any) -> dict[str, Any]:
    # lmms-eval leaves the quotes that kept a shell or itself from cutting the text.
    value = _value(text.strip("'") if isinstance(text, str) else text)
    if not isinstance(value, dict):
        raise ValueError(
            f'method_args={text}: expected a JSON object such as {{"alpha": 0.1}}; or give each '
            "parameter as method.alpha=0.1."
        )
    return dict(value)


def _batch_size(value: Any) -> int:
    size = _value(value)
    if type(size) is not int or size < 1:
        raise ValueError(f"batch_size is {value!r}: expected a number of at least 1; correct it.")
    return size


def _check(name: str, value: Any, names: list[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, [*names, "method_args"], n=1, cutoff=0.0)[0]
        raise ValueError(
            f"--model_args {name}={value}: expected one of {', '.join(names)}, method_args or "
            f"{PREFIX}PARAMETER; did you mean {near!r}?"
        )
    kind = int if name in ("seed", "batch_size") else str
    if type(value) is not kind:
        raise ValueError(
            f"--model_args {name}={value!r} is {kind_of_value(value)}: expected "
            f"{'an integer' if kind is int else 'a string'}; correct it."
        )
