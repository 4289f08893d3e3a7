"""Functions that run around methods of a model.

A method of a class is wrapped once a process, in the class, so that a shallow copy or a replica of the
model runs the method on itself. A callable that somebody set on the model is wrapped where it was set.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from torch import nn

# Where a module keeps the functions around its methods, and a mark on wrapped methods.
ATTRIBUTE = "_rvelens_around"

# Gets the module, its method, and the arguments of the call.
_Around = Callable[[Any, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


class Arounds(dict[str, _Around]):
    """Functions around the methods of one module, by name; copies and pickles hold None."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()


def has_method(module: nn.Module, name: str) -> bool:
    """Whether a module has a method itself, where adapters hand on those of the model below."""
    own = module.__dict__.get(name, getattr(type(module), name, None))
    return callable(own)


def wrap_method(module: nn.Module, name: str, around: _Around) -> None:
    """Let calls of a module's method run `around`; an earlier function around it is replaced.

    Args:
        module: has the method, in its class or as an attribute of its own.
        name: of the method.
        around: called in the method's place as `around(module, method, args, kwargs)`.
    """
    own = module.__dict__.get(name)
    if own is not None:
        module.__dict__[name] = WrappedAttribute(module, own, around)
        return
    _wrap_class(type(module), name)
    # A new one each time, so that what a caller put aside stays as it was.
    module.__dict__[ATTRIBUTE] = Arounds({**(module.__dict__.get(ATTRIBUTE) or {}), name: around})


class WrappedAttribute:
    """A callable that was set on a module, with a function around it."""

    def __init__(self, module: nn.Module, own: Any, around: _Around) -> None:
        self.own = own.own if isinstance(own, WrappedAttribute) else own
        self.module = weakref.ref(module)  # weak: the module holds this in the method's place
        self.around = around
        self.__wrapped__ = self.own  # its signature is this one's

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `around` returns."""
        return self.around(self.module(), self.own, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles of the module hold the callable itself again."""
        return _same, (self.own,)


def _same(own: Any) -> Any:
    return own


def _wrap_class(kind: type, name: str) -> None:
    owner = next(base for base in kind.__mro__ if name in vars(base))
    method = vars(owner)[name]
    if hasattr(method, ATTRIBUTE):
        return

    @wraps(method)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        around = (getattr(module, ATTRIBUTE, None) or {}).get(name)
        if around is None:
            return method(module, *args, **kwargs)
        return around(module, partial(method, module), args, kwargs)

    setattr(wrapped, ATTRIBUTE, name)
    setattr(owner, name, wrapped)
