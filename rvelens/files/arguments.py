"""Arguments of the public functions against their annotations, before a function works with them.

A text where a list of texts is expected would be split into letters, True would count as 1, and NaN
would pass every comparison. Each is refused in one sentence instead.
"""

from __future__ import annotations

import functools
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping
from io import BufferedIOBase
from numbers import Integral
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rvelens.files.wording import kind_of_value, with_article

Checked = TypeVar("Checked", bound=Callable[..., Any])

_PLURALS = {
    str: "texts", int: "whole numbers", float: "numbers", bool: "truth values", Any: "values"
}  # fmt: skip
_SINGULARS = {
    str: "a text", int: "a whole number", float: "a number", bool: "True or False", Path: "a path",
    type(None): "None", None: "None", IO: "an open file", BufferedIOBase: "an open file",
    Any: "any value",
}  # fmt: skip
_OTHER_NAMES = {"Image": "a PIL image", "Module": "a model", "ndarray": "a NumPy array"}
_TEXT = (str, bytes, bytearray)
_READ_AGAIN = (list, tuple, set, frozenset)  # whose elements can be looked at before they are used


def refuse_wrong_types(target: Checked) -> Checked:
    """A function or a dataclass that refuses arguments of another type than annotated.

    Annotations that are not known at run time, and shapes of tensors, are not looked at.

    Args:
        target: a function, a method, or a class, of which the arguments of `__init__` are checked.
    """
    if not isinstance(target, type):
        return _refusing(target, target.__qualname__.removesuffix(".__init__"), allow_nan=False)
    kind: Any = target
    # What holds data may hold a number that is missing.
    kind.__init__ = _refusing(kind.__init__, kind.__name__, allow_nan=True)
    return kind


def _refusing(function: Any, name: str, *, allow_nan: bool) -> Any:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            values = signature.bind(*args, **kwargs).arguments
        except TypeError:  # arguments that are missing, or too many: in Python's own words
            return function(*args, **kwargs)
        for parameter, hint in _hints(function).items():
            if parameter in values:
                _check(f"{name}({parameter}=", values[parameter], hint)
                if not allow_nan:
                    _refuse_nan(name, signature.parameters[parameter], values[parameter])
        return function(*args, **kwargs)

    return refusing


@functools.cache
def _hints(function: Any) -> dict[str, Any]:
    """The annotations of a function's parameters; {} if a name in them is not known at run time."""
    function = inspect.unwrap(function)
    try:
        annotations = get_type_hints(function)
    except NameError:
        return {}
    return {
        parameter.name: annotations[parameter.name]
        for parameter in inspect.signature(function).parameters.values()
        if annotations.get(parameter.name, Any) is not Any
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _check(place: str, value: Any, hint: Any) -> None:
    if is_of(value, hint):
        return
    raise TypeError(
        f"{place}{_shown(value, hint)}): expected {described(hint)}; {_advice(place, value, hint)}."
    )


def _shown(value: Any, hint: Any) -> str:
    """A value on one line; where an object of this package should be, only the type of the value.

    An endpoint holds a key, so what was passed in its place may be a key.
    """
    kinds = [kind for kind in _alternatives(hint) if isinstance(kind, type)]
    if any(kind.__module__.startswith("rvelens") for kind in kinds):
        return kind_of_value(value)
    return " ".join(brief(value).split())


def _refuse_nan(name: str, parameter: inspect.Parameter, value: Any) -> None:
    is_number = hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0
    is_nan = is_number and bool(value != value)
    if is_nan and parameter.default == parameter.default:
        raise ValueError(f"{name}({parameter.name}=nan): expected a finite number; pass one.")


def _advice(place: str, value: Any, hint: Any) -> str:
    """What to do: a text in brackets, the element that is wrong, or another value."""
    several = next((h for h in _alternatives(hint) if _is_sequence(h)), None)
    if several is not None and isinstance(value, str) and is_of([value], several):
        return f"write {place.partition('(')[2]}[{brief(value)}]"
    if several is not None and isinstance(value, _READ_AGAIN):
        element = next(iter(get_args(several)), Any)
        wrong = [part for part in value if not is_of(part, element)]
        if wrong:
            return f"correct {brief(wrong[0])}"
    if isinstance(value, str) and any(h in (int, float) for h in _alternatives(hint)):
        return "pass it without quotes"
    return "pass one"


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_sequence(hint: Any) -> bool:
    """Whether a hint is of several values in an order, or to be run over; mappings are not."""
    kind = get_origin(hint) or hint
    return (
        isinstance(kind, type)
        and issubclass(kind, Iterable)
        and not issubclass(kind, (*_TEXT, Mapping))
        and (get_origin(hint) is not None or kind in (list, tuple, set))
    )


def _is_mapping(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, Mapping)


def is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; a whole number serves as a number, True as neither."""
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        hints = get_args(hint)
        if isinstance(value, Mapping):  # A mapping is iterable too, but is not meant as a list.
            hints = [h for h in hints if _is_mapping(h)] or hints
        return any(is_of(value, alternative) for alternative in hints)
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if kind is None or kind is type(None):
        return value is None
    if kind is Literal:
        return value in get_args(hint)
    if hasattr(kind, "array_type"):
        # A tensor serves as an array.
        is_array = kind.array_type.__name__ == "ndarray" and hasattr(value, "__array__")
        return is_array or kind.array_type is Any or isinstance(value, kind.array_type)
    if not isinstance(kind, type):
        return True
    return _is_of_class(value, kind, hint)


def _is_of_class(value: Any, kind: type, hint: Any) -> bool:
    if kind in (int, float):
        return _is_number(value, kind)
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ == "bool"  # of NumPy
    if kind is IO:
        return callable(getattr(value, "read", None))
    if issubclass(kind, Path):
        return isinstance(value, (str, os.PathLike))
    if kind is Callable or hint is Callable or get_origin(hint) is Callable:
        return callable(value)
    if _is_sequence(hint):
        return _are_of(value, get_args(hint))
    if _is_mapping(hint) and get_args(hint):
        of_key, of_value = get_args(hint)
        return isinstance(value, Mapping) and all(
            is_of(k, of_key) and is_of(v, of_value) for k, v in value.items()
        )
    if getattr(kind, "_is_protocol", False):
        return value is not None
    return isinstance(value, kind)


def _is_number(value: Any, kind: type) -> bool:
    """Real or whole; also a NumPy number, or a tensor of one element."""
    if isinstance(value, (bool, *_TEXT)) or type(value).__name__ == "bool":
        return False
    if kind is int:
        return isinstance(value, Integral) or _is_whole_tensor(value)
    return hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def _is_whole_tensor(value: Any) -> bool:
    """A tensor or array of one whole number, such as the elements of `torch.arange`."""
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    return dtype.startswith(("int", "uint")) and value.ndim == 0


def _are_of(value: Any, elements: tuple[Any, ...]) -> bool:
    """Whether a value can be run over, and its elements are of a type; a text is not run over."""
    can_be_run_over = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    if isinstance(value, _TEXT) or not can_be_run_over or getattr(value, "ndim", 1) == 0:
        return False
    if not isinstance(value, _READ_AGAIN) or not elements:
        return True
    if len(elements) > 1 and elements[1] is not Ellipsis:  # a tuple of a fixed length
        return len(value) == len(elements) and all(map(is_of, value, elements))
    of_each = next(iter(elements))
    return all(is_of(element, of_each) for element in value)


def described(hint: Any) -> str:
    """A type in words: "a list of texts or None"."""
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        hints = [h for h in get_args(hint) if not (h is str and Path in get_args(hint))]
        return _either(map(described, hints))
    if kind in _SINGULARS:
        return _SINGULARS[kind]
    if kind is Literal:
        return _either(map(repr, get_args(hint)))
    if kind is Callable:
        return "a function"
    if _is_sequence(hint):
        return _several(get_args(hint))
    if _is_mapping(hint):
        return " to ".join(["a mapping", *map(_plural, get_args(hint))]).replace(" to ", " of ", 1)
    name = getattr(kind, "array_type", kind).__name__
    return _OTHER_NAMES.get(name, with_article(name.lower() if name == "Tensor" else name))


def _either(words: Iterable[str]) -> str:
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def _several(elements: tuple[Any, ...]) -> str:
    if len(elements) > 1 and elements[1] is not Ellipsis:
        return f"a tuple of {' and '.join(map(described, elements))}"
    return f"a list of {_plural(elements[0])}" if elements else "a list"


def _plural(hint: Any) -> str:
    """Several of a type in words: "texts", "Benchmark objects", "pairs"."""
    if len(_alternatives(hint)) > 1:
        return _either(map(_plural, _alternatives(hint)))
    if hint in _PLURALS:
        return _PLURALS[hint]
    if _is_sequence(hint):
        n = len(get_args(hint))
        fixed = n > 1 and Ellipsis not in get_args(hint)
        if not fixed:
            return f"lists of {_plural(get_args(hint)[0])}" if n else "lists"
        return "pairs" if n == 2 else f"tuples of {n}"
    name = getattr(getattr(hint, "array_type", hint), "__name__", "")
    return {"Tensor": "tensors", "ndarray": "arrays", "Path": "paths"}.get(name, f"{name} objects")
