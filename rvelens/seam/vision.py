"""Hook points of the vision tower, `vision.blocks.{layer}`, where its attention can be looked up.

The tower runs before the decoder. Its points show every row, and its own masks hold. Its modules are
located in the first hooked forward, on the inputs of that forward. A decoder needs only made-up ids; a
tower needs real inputs. How often attention is called may depend on the sizes of the images, so points
inside it are located again for other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from rvelens.seam import look_up
from rvelens.seam.arguments import Keywords
from rvelens.seam.forward import Run, refuse_checkpointing
from rvelens.seam.hook_point import Point
from rvelens.seam.lens_attention import LensAttention
from rvelens.seam.places import locate_in_tower
from rvelens.seam.stream import Stream, blocks_of
from rvelens.seam.taps import Idle, TapPoint
from rvelens.seam.watching import Stack


class Vision(nn.Module):
    """`vision`: holds the hook points of the tower's blocks."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks


@dataclass(eq=False)
class Tower:
    """The hook points of a vision tower.

    Attributes:
        handles: of the torch hooks on the tower, which are on while a point is in use.
        optional: names of points that are only to be cached, and left out where they are not exact.
        sizes: whole numbers among the tower's inputs when it was located, such as sizes of images.
        n_calls: calls of the tower since `caching` began.
    """

    stack: Stack
    run: Run = field(default_factory=lambda: Run(query_rows="all"))
    handles: list[Any] = field(default_factory=list)
    optional: frozenset[str] = frozenset()
    sizes: list[Any] = field(default_factory=list)
    n_calls: int = 0

    def __post_init__(self) -> None:
        self.stream = Stream(self.run, type(self.stack.whole).__name__, None, self.stack)
        self.layers = {n: LensAttention(self.run, n, self.stream) for n in self.stack.attentions}
        self.vision = Vision(blocks_of(self.stream, len(self.stack.blocks), self.layers))
        for n, module in self.stack.attentions.items():
            look_up.attach(module, self.layers[n])
        for hooks in (*self.layers.values(), *self.stream.points.values()):
            hooks.on_change = self._changed

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """The points belong to the model that was wrapped: copies and pickles hold None instead."""
        return type(None), ()

    def points(self) -> dict[Point, str]:
        """All points by their key."""
        points: dict[Point, str] = {p: key for key, p in self.stream.points.items()}
        for n, hooks in self.layers.items():
            points |= {
                p: f"{n}.attn.{name}"
                for name, p in hooks.named_children()
                if isinstance(p, Point) and not isinstance(p, TapPoint)
            }
        return points

    def _changed(self, point: Point) -> None:
        """Follow the tower while a point is in use."""
        used = any(p.in_use for p in self.points())
        if used and not self.handles:
            tower = self.stack.whole
            self.handles = [
                tower.register_forward_pre_hook(_Begin(self), with_kwargs=True),
                tower.register_forward_hook(_End(self), always_call=True),
            ]
        elif not used:
            for handle in self.handles:
                handle.remove()
            self.handles = []

    def is_whole(self, hf_model: Any) -> bool:
        """Whether the tower and its attention modules are still those that carry the hook points."""
        modules = set(self.stack.whole.modules())
        same = hf_model.get_encoder(modality="image") is self.stack.whole
        return same and modules.issuperset(self.stack.attentions.values())

    @contextmanager
    def caching(self, optional: Iterable[str]) -> Iterator[None]:
        """A context for one forward whose tensors of the tower are cached.

        Args:
            optional: points to leave out where they cannot be shown exactly.

        Raises:
            ValueError: the tower ran more than once, and a cache holds the last call alone.
        """
        self.optional, self.n_calls = frozenset(optional), 0
        try:
            yield
        finally:
            self.optional = frozenset()
        if self.n_calls > 1:
            raise ValueError(
                f"{type(self.stack.whole).__name__} ran {self.n_calls} times in a forward, and a cache "
                "holds its last call alone: expected one call; run images and videos one by one, or "
                "store its tensors in hooks of your own."
            )

    def begin(self, args: tuple[Any, ...], kwargs: Keywords) -> None:
        """Locate the points, and put the torch hooks on.

        Raises:
            NotImplementedError: backward would run the tower's layers again.
            ValueError: a point in use cannot be shown exactly.
        """
        self.n_calls += 1
        stream, tower = self.stream, self.stack.whole
        refuse_checkpointing(tower)
        stream.renew()
        used = {point: key for point, key in self.points().items() if point.in_use}
        sizes = [_numbers(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        inside = any(not isinstance(point, TapPoint) for point in used)
        if stream.sources is None or (inside and sizes != self.sizes):
            self.sizes = sizes
            stream.forget()
            forward = lambda: tower.forward(*args, **kwargs)  # noqa: E731
            stream.sources = locate_in_tower(self.stack, self.run, forward)
        skipped = []
        for point, key in used.items():
            if not self._is_refused(key):
                point.refresh()
            elif str(point.name) in self.optional:
                skipped.append(point)
            else:
                stream.refuse(key, str(point.name))
        self.run.begin(1, 2, None, True, tower)
        begun = self.run.here.forwards[-1]
        begun.fired |= {point for point in skipped if isinstance(point, TapPoint)}
        begun.skipped |= {point.layer() for point in skipped if not isinstance(point, TapPoint)}

    def _is_refused(self, key: str) -> bool:
        return isinstance((self.stream.sources or {}).get(key), str)

    def end(self, failed: bool) -> None:
        """Check that every hooked point ran, and that its numbers are finite.

        Raises:
            RuntimeError: a hooked point did not run.
            ValueError: NaN or infinity.
        """
        run = self.run
        forward = run.ending()
        if forward is None:
            return
        try:
            if failed:
                return
            ran = forward.fired | forward.skipped
            missed = self.stream.missed(forward)
            missed += [
                str(h.hook_z.name) for n, h in self.layers.items() if h.in_use and n not in ran
            ]
            if missed:
                raise RuntimeError(
                    f"hooks on {', '.join(missed)} did not run: expected every hooked layer to run; "
                    "hook a layer that the vision tower runs."
                )
            run.check()
        finally:
            run.unchecked = []
            run.leave()


def _numbers(x: Shaped[Tensor, "*any"]) -> list[Any] | None:
    return None if x.is_floating_point() or x.dtype == torch.bool else x.tolist()


class _Begin:
    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        self.tower.begin(args, kwargs)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Idle, ()


class _End:
    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.tower.end(output is None)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Idle, ()


def find_tower(
    hf_model: Any, decoder: nn.Module, asks: Callable[[type[nn.Module]], bool]
) -> Tower | None:
    """The vision tower of a model; None where its attention is not looked up in transformers' table.

    Args:
        hf_model: the whole model.
        decoder: its decoder, which is no tower.
        asks: whether a class asks for an attention function.
    """
    try:
        whole = hf_model.get_encoder(modality="image")
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return None
    if not isinstance(whole, nn.Module) or any(m is decoder for m in whole.modules()):
        return None
    for parent in whole.modules():
        for blocks in parent.children():
            if isinstance(blocks, nn.ModuleList) and len(blocks):
                modules = [_only_attention(block, asks) for block in blocks]
                if None not in modules:
                    attentions = {n: m for n, m in enumerate(modules) if m is not None}
                    return Tower(Stack(whole, parent, tuple(blocks), attentions))
    return None


def _only_attention(block: nn.Module, asks: Callable[[type[nn.Module]], bool]) -> nn.Module | None:
    """The only module of a block that asks for an attention function."""
    modules = [m for m in block.modules() if asks(type(m))]
    return modules[0] if len(modules) == 1 else None
