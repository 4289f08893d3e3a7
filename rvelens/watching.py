"""What one forward shows of the blocks of a stack: inputs, outputs and calls of attention."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens import attention
from rvelens.attention import Call
from rvelens.taps import first_of


@dataclass(frozen=True, eq=False)
class Stack:
    """The blocks of a decoder or of a vision tower.

    Attributes:
        whole: what is run.
        parent: the module that holds the blocks.
        attentions: the attention module of each block, by its number; blocks without have none.
    """

    whole: nn.Module
    parent: nn.Module
    blocks: tuple[nn.Module, ...]
    attentions: Mapping[int, nn.Module]


def find_stack(whole: nn.Module, attentions: Mapping[int, nn.Module]) -> Stack | None:
    """The list of blocks of which each holds its attention module; None if there is no such list."""
    for parent in whole.modules():
        for blocks in parent.children():
            if isinstance(blocks, nn.ModuleList) and _holds(blocks, attentions):
                return Stack(whole, parent, tuple(blocks), attentions)
    return None


def _holds(blocks: nn.ModuleList, attentions: Mapping[int, nn.Module]) -> bool:
    return max(attentions) < len(blocks) and all(
        any(m is module for m in blocks[n].modules()) for n, module in attentions.items()
    )


@dataclass(eq=False)
class Step:
    """One call of a module: what it got and what it returned."""

    module: nn.Module
    x: Tensor | None
    y: Tensor | None


@dataclass(eq=False)
class Seen:
    """What a forward showed of one block.

    Attributes:
        whole: the block itself.
        steps: its own modules, in the order in which they ran.
        inner: the modules of its attention.
        query, key, value, z: of its calls of the attention function, [batch head query d_head], z as
            [batch query head d_value]; calls for pieces of a sequence one behind the other.
        n_calls: of the attention function.
    """

    whole: Step | None = None
    steps: list[Step] = field(default_factory=list)
    inner: list[Step] = field(default_factory=list)
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    z: Tensor | None = None
    n_calls: int = 0


@dataclass(eq=False)
class _Watcher:
    """Stands in for the hook points of one layer, and keeps what its attention function gets."""

    seen: Seen
    thread: int = field(default_factory=threading.get_ident)
    in_use = True

    def attend(self, call: Call) -> tuple[Float[Tensor, "batch query head d_value"], Any]:
        """The layer's own attention."""
        z, weights = call.original()
        if threading.get_ident() == self.thread:
            seen = self.seen
            seen.query = _behind(seen.query, call.query, 2)
            seen.key = _behind(seen.key, call.key, 2)
            seen.value = _behind(seen.value, call.value, 2)
            seen.z = _behind(seen.z, z, 1)
            seen.n_calls += 1
        return z, weights


def _behind(before: Tensor | None, x: Tensor, dim: int) -> Tensor:
    x = x.detach().clone()
    return x if before is None else torch.cat([before, x], dim)


@torch.no_grad()
def watch(
    stack: Stack, forward: Callable[[], Any], beside_too: nn.Module | None = None
) -> tuple[list[Seen], list[Step]]:
    """What a forward shows of each block, of the modules beside the blocks, and of one more.

    Torch hooks that are on see the forward too; dropout is off.
    """
    seen = [Seen() for _ in stack.blocks]
    beside: list[Step] = []
    handles = [
        _keep(m, beside) for m in stack.parent.children() if not isinstance(m, nn.ModuleList)
    ]
    if beside_too is not None and all(m is not beside_too for m in stack.parent.children()):
        handles.append(_keep(beside_too, beside))
    for n, block in enumerate(stack.blocks):
        handles += [_keep(m, seen[n].steps) for m in block.children()]
        handles.append(block.register_forward_hook(_whole(seen[n]), with_kwargs=True))
        if n in stack.attentions:
            handles += [_keep(m, seen[n].inner) for m in stack.attentions[n].children()]
    try:
        with _watching(stack, seen):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return seen, beside


def _keep(module: nn.Module, steps: list[Step]) -> Any:
    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        steps.append(Step(module, _input_of(args, kwargs), _copy(first_of(output))))

    return module.register_forward_hook(keep, with_kwargs=True)


def _whole(seen: Seen) -> Callable[..., None]:
    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.whole = Step(module, _input_of(args, kwargs), _copy(first_of(output)))

    return keep


def _input_of(args: Any, kwargs: Any) -> Tensor | None:
    return _copy(args[0] if args else kwargs.get("hidden_states"))


def _copy(x: Any) -> Tensor | None:
    return x.detach().clone() if isinstance(x, Tensor) else None


@contextmanager
def _watching(stack: Stack, seen: list[Seen]) -> Iterator[None]:
    """Watchers in the place of hook points, without dropout; afterwards everything is as before."""
    training = [module for module in stack.whole.modules() if module.training]
    hooks = {n: attention.hooks_of(module) for n, module in stack.attentions.items()}
    try:
        for module in training:
            module.training = False
        for n, module in stack.attentions.items():
            attention.attach(module, _Watcher(seen[n]))
        yield
    finally:
        for n, module in stack.attentions.items():
            attention.attach(module, hooks[n])
        for module in training:
            module.training = True
