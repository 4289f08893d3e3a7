"""Fingerprints of hooks: the same code, constants and state give the same digest in any process.

A resumed run must not use answers of other code. A fingerprint covers the bytecode of a function, its
constants, defaults, closure and attributes, and the globals that it names. It follows helpers,
partials, classes and their instances, and covers every value of a tensor. A library is identified by
its name and version. A fingerprint does not cover names that are looked up by text (`getattr`, `eval`),
files, and random numbers.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import re
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np
import torch
from transformers import PreTrainedModel

from rvelens.evaluate.python_code import (
    chains,
    is_code_of_class,
    is_found_by_name,
    is_python_class,
    library_of,
    state,
)
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.weights import tensors_digest

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice)
_BY_TEXT = (
    torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, np.dtype, PurePath,
    re.Pattern,
)  # fmt: skip
_CONTAINERS = (list, tuple, dict, set, frozenset, bytearray)
_REDUCED = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_NAMED = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.MethodWrapperType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, np.ufunc,
)  # fmt: skip
_NUMBERS_AND_TEXTS = (int, float, complex, str, bytes)


def fingerprint(value: Any, name: str) -> str:
    """SHA-256 of a hook, or of anything made of functions, plain values and tensors.

    Args:
        value: what to identify.
        name: the name of the value in the error.

    Raises:
        ValueError: a part of it, which the message names, has a state that cannot be read.
    """
    try:
        return _Walk(name).of(value)
    except RecursionError as error:
        raise ValueError(
            f"{name} is nested too deeply to compare it with that of an earlier run: expected a "
            "simpler object; pass Method(version=...) a text that you change with the method."
        ) from error


class _Walk:
    """One pass over a value: digests of what was met, and the path to where it is."""

    def __init__(self, name: str) -> None:
        self.path = [name]
        self.digests: dict[int, str] = {}
        self.alive: list[Any] = []  # an id names an object only while the object lives

    def of(self, value: Any, step: str = "") -> str:
        """The digest of a value, which a step leads to."""
        if type(value) in _PLAIN:
            return _digest(type(value).__name__, ascii(value))
        if id(value) in self.digests:
            return self.digests[id(value)]
        # Of what holds itself, the way back is all that need be known.
        self.digests[id(value)] = f"within {len(self.path)}"
        self.alive.append(value)
        self.path.append(step)
        digest = _digest(type(value).__qualname__, *self._parts(value))
        self.path.pop()
        self.digests[id(value)] = digest
        return digest

    def _parts(self, value: Any) -> Iterator[str]:
        for kinds, parts in _KINDS:
            if isinstance(value, kinds):
                return parts(self, value)
        if isinstance(value, types.ModuleType):
            self._refuse(f"the module {value.__name__}")
        return self._object(value)

    def _refuse(self, part: str) -> NoReturn:
        place = ", ".join(step for step in self.path if step)
        raise ValueError(
            f"{place} holds {part}, which cannot be compared with that of an earlier run: expected "
            "functions, plain values and tensors; pass Method(version=...) a text that you change "
            "with the method."
        )

    def _container(self, value: Any) -> Iterator[str]:
        yield _name_of(type(value))
        if isinstance(value, dict):
            for key, content in value.items():
                yield self.of(key)
                yield self.of(content, f"{key!r}" if isinstance(key, str) else "")
        elif isinstance(value, set | frozenset):
            yield from sorted(self.of(element) for element in value)
        elif isinstance(value, bytearray):
            yield bytes(value).hex()
        else:
            yield from (self.of(element) for element in value)
        if hasattr(value, "__dict__"):
            yield self.of(dict(vars(value)))

    def _array(self, value: Any) -> Iterator[str]:
        array = np.asarray(value)
        if array.dtype.hasobject:
            yield self.of(array.tolist())
        yield f"{array.dtype.str}{array.shape}"
        yield hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    def _tensor(self, value: torch.Tensor) -> Iterator[str]:
        if value.layout != torch.strided or value.device.type == "meta":
            self._refuse(f"a tensor of layout {value.layout} on {value.device.type}")
        yield f"{value.dtype}{tuple(value.shape)}"
        flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        yield hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()

    def _function(self, value: types.FunctionType) -> Iterator[str]:
        within = library_of(value.__module__)
        if within and is_found_by_name(value):
            yield f"{within} {value.__module__}:{value.__qualname__}"
            return
        yield self._code(value.__code__)
        yield self.of(value.__defaults__, "defaults")
        yield self.of(value.__kwdefaults__, "defaults")
        yield self.of({k: v for k, v in vars(value).items() if k != "__doc__"}, "attributes")
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            yield name + self.of(content, f"closure variable {name!r}")
        if not within:
            yield from self._globals(value.__code__, value.__globals__)

    def _code(self, code: types.CodeType) -> str:
        numbers = (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        constants = (
            self._code(co_const) if isinstance(co_const, types.CodeType) else self.of(co_const)
            for co_const in code.co_consts
        )  # fmt: skip
        binary = (code.co_code.hex(), code.co_exceptiontable.hex())
        return _digest(code.co_name, repr(numbers), repr(names), *binary, *constants)

    def _globals(self, code: types.CodeType, names: Mapping[str, Any]) -> Iterator[str]:
        """What the code, and code within it, takes from its module."""
        for chain in chains(code):
            if chain[0] == "import":
                if not library_of(chain[1]):
                    self._refuse(f"an import of {chain[1]} within a function")
                continue
            yield "".join(chain) + self._resolved(chain, names)
        for co_const in code.co_consts:
            if isinstance(co_const, types.CodeType):
                yield from self._globals(co_const, names)

    def _resolved(self, chain: list[str], names: Mapping[str, Any]) -> str:
        """The digest of `a.b.c`: of what it names, as soon as that is no module."""
        name, *attributes = chain
        if name not in names:
            return "built in"
        value = names[name]
        for attribute in attributes:
            if not isinstance(value, types.ModuleType) or library_of(value.__name__):
                break
            value = getattr(value, attribute, None)
        if isinstance(value, types.ModuleType) and (within := library_of(value.__name__)):
            return f"{within} {value.__name__}"
        return self.of(value, f"global {'.'.join(chain)!r}")

    def _method(self, value: types.MethodType) -> Iterator[str]:
        yield self.of(value.__func__)
        yield self.of(value.__self__)

    def _partial(self, value: functools.partial[Any]) -> Iterator[str]:
        yield self.of((value.func, value.args, value.keywords))

    def _named(self, value: Any) -> Iterator[str]:
        yield str(getattr(value, "__qualname__", value.__name__))
        owner = getattr(value, "__self__", getattr(value, "__objclass__", None))
        if owner is not None and not isinstance(owner, types.ModuleType):
            yield self.of(owner)
        yield str(getattr(value, "__module__", None))

    def _class(self, value: type) -> Iterator[str]:
        yield _name_of(value)
        for base in value.__mro__:
            if within := library_of(base.__module__):
                yield f"{within} {_name_of(base)}"
                continue
            for name, attribute in vars(base).items():
                if is_code_of_class(name, attribute):
                    yield name + self.of(attribute, f"{base.__name__}.{name}")

    def _wrapped(self, value: Any) -> Iterator[str]:
        for name in ("fget", "fset", "fdel", "func", "__func__", "__wrapped__"):
            yield self.of(getattr(value, name, None))

    def _model(self, value: Any) -> Iterator[str]:
        module = getattr(value, "hf_model", value)
        yield tensors_digest(module.state_dict())
        yield module.config.to_json_string()

    def _object(self, value: Any) -> Iterator[str]:
        kind = type(value)
        yield self.of(kind)
        if not all(
            is_python_class(base) for base in kind.__mro__ if base not in _NUMBERS_AND_TEXTS
        ):
            self._refuse(f"an object of type {_name_of(kind)}")
        for base in _NUMBERS_AND_TEXTS:
            if isinstance(value, base):
                show: Any = base.__repr__  # and not what a subclass makes of it
                yield ascii(show(value))
        for name, content in state(value):
            yield name + self.of(content, f"{kind.__name__}.{name}")


# What is read how; the first that fits.
_KINDS: tuple[tuple[Any, Callable[[Any, Any], Iterator[str]]], ...] = (
    (Enum, lambda walk, value: iter((walk.of(type(value).__name__), value.name))),
    (_BY_TEXT, lambda walk, value: iter((repr(value),))),
    ((HookedLVLM, PreTrainedModel), _Walk._model),
    (torch.Tensor, _Walk._tensor),
    ((np.ndarray, np.generic), _Walk._array),
    (_CONTAINERS, _Walk._container),
    (types.MappingProxyType, lambda walk, value: walk._container(dict(value))),
    (types.FunctionType, _Walk._function),
    (types.MethodType, _Walk._method),
    (functools.partial, _Walk._partial),
    (_REDUCED, lambda walk, value: iter((walk.of(value.__reduce__()),))),
    ((property, staticmethod, classmethod, functools.cached_property), _Walk._wrapped),
    (functools._lru_cache_wrapper, _Walk._wrapped),
    (_NAMED, _Walk._named),
    (type, _Walk._class),
)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
