"""Analyses Python code: which library it belongs to, and what a function uses of its module."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import rvelens

# Flags of C classes, and of classes that a class statement made.
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
_OF_DATACLASSES = "<string>"  # the file name of methods that `dataclass` writes
_CODE = (types.FunctionType, property, staticmethod, classmethod, functools.cached_property)
_INSTALLED = {"site-packages", "dist-packages"}


@functools.cache
def library_of(module: str | None) -> str:
    """Name and version of the library of a module; "" for the user's own code."""
    root = (module or "").partition(".")[0]
    if root in ("", "__main__"):
        return ""
    if root in sys.stdlib_module_names:
        return "python"
    if root == "rvelens":
        return f"rvelens {rvelens.__version__} {_own_code()}"
    if not _INSTALLED & set(Path(_origin(root)).parts):
        return ""
    try:
        return f"{root} {metadata.version(root)}"
    except metadata.PackageNotFoundError:
        return f"{root} {getattr(sys.modules.get(root), '__version__', '')}"


def _origin(root: str) -> str:
    """The file of a top-level module, or a folder of it; "" where it has none."""
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    return str(spec.origin or next(iter(spec.submodule_search_locations or ()), ""))


@functools.cache
def _own_code() -> str:
    """A digest of the methods of this package, which may change without its version."""
    folder = Path(__file__).parents[1]
    files = [path for name in ("hooks", "interventions") for path in (folder / name).glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def is_found_by_name(function: types.FunctionType) -> bool:
    """Whether the module and the name of a function give the function itself."""
    target: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        target = getattr(target, name, None)
    return target is function


def chains(code: types.CodeType) -> Iterator[list[str]]:
    """["a", "b"] for each `a.b` that code uses from its module; ["import", name] for imports."""
    chain: list[str] = []
    for step in dis.get_instructions(code):
        if step.opname == "EXTENDED_ARG":
            continue
        if chain and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(step.argval)
            continue
        if chain:
            yield chain
        chain = [step.argval] if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else []
        if step.opname == "IMPORT_NAME":
            yield ["import", step.argval]
    if chain:
        yield chain


def is_python_class(kind: type) -> bool:
    """Whether Python code can read the whole state of a class's instances."""
    if kind in (object, types.SimpleNamespace):
        return True
    if not kind.__flags__ & _HEAP_TYPE or kind.__flags__ & _IMMUTABLE_TYPE:
        return False
    named = {"__dict__", "__slots__"} & vars(kind).keys()
    return bool(named) or any(
        is_python_class(base) for base in kind.__bases__ if base is not object
    )


def is_code_of_class(name: str, attribute: Any) -> bool:
    """Whether an attribute of a class determines the behaviour of its instances."""
    if isinstance(attribute, types.FunctionType):
        return attribute.__code__.co_filename != _OF_DATACLASSES
    if isinstance(attribute, _CODE):
        return True
    slot = isinstance(attribute, types.MemberDescriptorType | types.GetSetDescriptorType)
    return not slot and not name.startswith("__") and name != "_abc_impl"


def state(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an instance, except those that are computed from the others."""
    kind = type(value)
    if library_of(kind.__module__).startswith("rvelens ") and dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.init:
                yield field.name, getattr(value, field.name)
        return
    for name, content in getattr(value, "__dict__", {}).items():
        if not isinstance(getattr(kind, name, None), functools.cached_property):
            yield name, content
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)
