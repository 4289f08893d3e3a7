"""A hook point that says in plain attributes which hooks are on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import wraps
from textwrap import shorten
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor
from torch.compiler import is_compiling
from transformer_lens.hook_points import HookPoint, LensHandle

from rvelens.hooks.declared import edits_in_place

# Where torch keeps the hooks of a module.
_TORCH_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


class Point(HookPoint):
    """A hook point that says in plain attributes which hooks are on.

    A compiled graph does not notice torch hooks that come and go, but it does notice attributes: it is
    compiled again for other hooks.

    Attributes:
        on: whether any hook is on.
        plain: the forward hooks in order, if there are no others; a graph runs these by itself. None
            where a backward hook, a torch hook, an alias or a conversion is on, which break the graph.
        several: whether a hook may see what another one made.
        in_place: whether a hook may edit what it is given; see `edits_in_place`.
        on_change: called when hooks come or go.
        flag: on the device, true once a hook made NaN or infinity inside a graph.
    """

    finds_tokens: ClassVar[bool] = True
    on_change: Callable[[Any], None] | None = None
    on: bool
    plain: tuple[Any, ...] | None
    several: bool
    in_place: bool

    def __init__(self) -> None:
        super().__init__()
        self.flag: Tensor | None = None
        for name in _TORCH_HOOKS:
            setattr(self, name, Watched(self))
        self._user_hooks: dict[int, Any] = {}  # by the number of their torch hook
        self.refresh()

    def __setattr__(self, name: str, value: Any) -> None:
        is_new = name in _TORCH_HOOKS and not isinstance(value, Watched)
        stored: Any = Watched(self, value) if is_new else value
        super().__setattr__(name, stored)
        if name in ("hook_conversion", *_TORCH_HOOKS) and "_user_hooks" in self.__dict__:
            self.refresh()

    @property
    def in_use(self) -> bool:
        """Whether any hook is on now, torch's own included."""
        return bool(self._forward_hooks or self._backward_hooks or self._forward_pre_hooks)

    def refresh(self) -> None:
        """Read off what is on."""
        self.on = self.in_use
        hooks = [self._user_hooks.get(number, self) for number in self._forward_hooks]
        for gone in self._user_hooks.keys() - self._forward_hooks.keys():
            del self._user_hooks[gone]  # with whatever tensors it holds
        simple = self not in hooks and self.hook_conversion is None
        simple = simple and not (self._backward_hooks or self._forward_pre_hooks)
        self.plain = tuple(hooks) if simple else None
        self.several = len(hooks) + len(self._forward_pre_hooks) > 1
        self.in_place = not simple or any(map(edits_in_place, hooks))
        if self.on_change is not None:
            self.on_change(self)

    def add_hook(self, *args: Any, **kwargs: Any) -> LensHandle:
        """As in TransformerLens."""
        handle = super().add_hook(*args, **kwargs)
        if kwargs.get("alias_names") is None and len(args) < 6:
            self._user_hooks[handle.hook.id] = handle.user_hook
        self.refresh()
        return handle

    def layer(self) -> int:
        """The layer that the name tells, "vision.blocks.3.attn.hook_z" too."""
        return int((self.name or "").rpartition("blocks.")[2].split(".")[0])


class Watched(OrderedDict[int, Any]):
    """The torch hooks of a point, which is refreshed by every method that adds or removes one."""

    def __init__(self, point: Point, hooks: Mapping[int, Any] = MappingProxyType({})) -> None:
        self.point = point
        self.ready = False  # OrderedDict adds its first items by __setitem__
        super().__init__(hooks)
        self.ready = True


def _refreshing(name: str) -> Callable[..., Any]:
    method = getattr(OrderedDict, name)

    @wraps(method)
    def change(self: Watched, *args: Any, **kwargs: Any) -> Any:
        before = dict(self)
        result = method(self, *args, **kwargs)
        if self.ready:
            try:
                self.point.refresh()
            except ValueError:  # a point that cannot be shown exactly
                self.ready = False
                OrderedDict.clear(self)
                OrderedDict.update(self, before)
                self.ready = True
                raise
        return result

    return change


for _name in (
    "__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update",
    "move_to_end",
):  # fmt: skip
    setattr(Watched, _name, _refreshing(_name))


def has_hooks(point: Point) -> bool:
    """Whether any hook is on; inside a graph, read from an attribute that it guards."""
    return point.on if is_compiling() else point.in_use


def hook_names(point: HookPoint) -> str:
    """The names of a point's hooks, for a message."""
    return ", ".join(name_of(handle.user_hook) for handle in point.fwd_hooks) or "torch hook"


def name_of(hook: Any) -> str:
    """A hook's name for a message: never the whole of a tensor that it holds."""
    return getattr(hook, "__name__", None) or shorten(repr(hook), 80, placeholder=" ...")
