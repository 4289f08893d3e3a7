"""The look-up of attention functions in `transformers`, wrapped once a process.

At every call an attention module of `transformers` looks its attention function up in one table, by the
name in the model's configuration. `wrap_look_up` wraps that look-up. The function that the module
would have run goes to `run_attention`, which runs it unchanged unless the module carries hook points
that are in use. The configuration keeps its name, so no branch of a model changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from rvelens.seam.call import Call

# Where an attention module keeps what stands in for its attention function.
_ATTRIBUTE = "_rvelens_hooks"


def wrap_look_up() -> None:
    """Wrap the look-up of attention functions, once a process."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    look_up = ALL_ATTENTION_FUNCTIONS.get_interface
    if isinstance(look_up, LookUp):
        return
    ALL_ATTENTION_FUNCTIONS.get_interface = LookUp(look_up)  # type: ignore[method-assign]


@dataclass(frozen=True)
class LookUp:
    """transformers' look-up of an attention function, with `attention` around what it finds."""

    original: Callable[..., Callable[..., Any]]

    def __call__(
        self, attn_implementation: str | None, default: Callable[..., Any] | None
    ) -> Callable[..., Any]:
        """The function of that name, or the module's own one for "eager"."""
        function = self.original(attn_implementation, default)
        return partial(run_attention, function, attn_implementation)


def run_attention(
    function: Callable[..., Any],
    name: str | None,
    module: nn.Module,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Attention as `transformers` calls it: the module's own function, or its hook points around it."""
    hooks = getattr(module, _ATTRIBUTE, None)
    if hooks is None or not hooks.in_use:
        return function(module, query, key, value, attention_mask, *args, **kwargs)
    call = Call(function, name, module, query, key, value, attention_mask, args, kwargs)
    return hooks.attend(call)


def hooks_of(module: nn.Module) -> Any:
    """What stands in for a module's attention function, if anything does."""
    return module.__dict__.get(_ATTRIBUTE)


def attach(module: nn.Module, hooks: Any) -> None:
    """Let hook points, or anything with `in_use` and `attend`, stand in for a module's attention."""
    module.__dict__[_ATTRIBUTE] = hooks  # not a submodule: the model's own modules stay as they are
