"""A record of one forward: inputs and outputs of blocks and of their modules, calls of attention."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.seam import look_up
from rvelens.seam.call import Call
from rvelens.seam.taps import first_of


@dataclass(frozen=True, eq=False)
class Stack:
    """The blocks of a decoder or of a vision tower.

    Attributes:
        whole: the decoder or the tower.
        parent: the module that holds the blocks.
        attentions: the attention module of each block, by the block's number; fewer in hybrids.
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
class ModuleCall:
    """One call of a module, with the hidden states that it got and returned."""

    module: nn.Module
    x: Tensor | None
    y: Tensor | None


@dataclass(eq=False)
class BlockRecord:
    """One block in one forward.

    Attributes:
        whole: the call of the block itself.
        calls: calls of its child modules, in the order in which they ran.
        inner: calls of the child modules of its attention.
        query, key, value: what its attention function got, [batch head query d_head].
        z: what its attention function returned, [batch query head d_value]. Calls for pieces of a
            sequence are concatenated.
        n_calls: number of calls of the attention function.
    """

    whole: ModuleCall | None = None
    calls: list[ModuleCall] = field(default_factory=list)
    inner: list[ModuleCall] = field(default_factory=list)
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    z: Tensor | None = None
    n_calls: int = 0


@dataclass(eq=False)
class _Watcher:
    """Takes the place of the hook points of one layer, and records its attention function."""

    record: BlockRecord
    thread: int = field(default_factory=threading.get_ident)
    in_use = True

    def attend(self, call: Call) -> tuple[Float[Tensor, "batch query head d_value"], Any]:
        """The layer's own attention."""
        z, weights = call.original()
        if threading.get_ident() == self.thread:
            record = self.record
            record.query = _append(record.query, call.query, 2)
            record.key = _append(record.key, call.key, 2)
            record.value = _append(record.value, call.value, 2)
            record.z = _append(record.z, z, 1)
            record.n_calls += 1
        return z, weights


def _append(before: Tensor | None, x: Tensor, dim: int) -> Tensor:
    x = x.detach().clone()
    return x if before is None else torch.cat([before, x], dim)


@torch.no_grad()
def watch(
    stack: Stack, forward: Callable[[], Any], embedding: nn.Module | None = None
) -> tuple[list[BlockRecord], list[ModuleCall]]:
    """Records of the blocks in one forward, and calls of the modules that are in no block.

    Torch hooks of other owners run in the forward too. Dropout is off.

    Args:
        stack: the blocks.
        forward: runs the decoder or the tower.
        embedding: a module to record as well, wherever it is.
    """
    records = [BlockRecord() for _ in stack.blocks]
    outer: list[ModuleCall] = []
    siblings = [m for m in stack.parent.children() if not isinstance(m, nn.ModuleList)]
    if embedding is not None and all(m is not embedding for m in siblings):
        siblings.append(embedding)
    handles = [_record(m, outer.append) for m in siblings]
    for n, (block, record) in enumerate(zip(stack.blocks, records, strict=True)):
        handles += [_record(m, record.calls.append) for m in block.children()]
        handles.append(_record(block, partial(setattr, record, "whole")))
        if n in stack.attentions:
            handles += [_record(m, record.inner.append) for m in stack.attentions[n].children()]
    try:
        with _watching(stack, records):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return records, outer


def _record(module: nn.Module, store: Callable[[ModuleCall], Any]) -> Any:
    def on_call(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        store(ModuleCall(module, _input_of(args, kwargs), _copy(first_of(output))))

    return module.register_forward_hook(on_call, with_kwargs=True)


def _input_of(args: Any, kwargs: Any) -> Tensor | None:
    return _copy(args[0] if args else kwargs.get("hidden_states"))


def _copy(x: Any) -> Tensor | None:
    return x.detach().clone() if isinstance(x, Tensor) else None


@contextmanager
def _watching(stack: Stack, records: list[BlockRecord]) -> Iterator[None]:
    """Puts watchers in the place of hook points and turns dropout off; restores both at the end."""
    training = [module for module in stack.whole.modules() if module.training]
    hooks = {n: look_up.hooks_of(module) for n, module in stack.attentions.items()}
    try:
        for module in training:
            module.training = False
        for n, module in stack.attentions.items():
            look_up.attach(module, _Watcher(records[n]))
        yield
    finally:
        for n, module in stack.attentions.items():
            look_up.attach(module, hooks[n])
        for module in training:
            module.training = True
