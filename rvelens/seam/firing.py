"""Running the hooks of a point, and whether they edited what they were given."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.compiler import is_compiling

from rvelens.seam.forward import Forward, Run
from rvelens.seam.hook_point import Point, hook_names, name_of


def check_returned(point: Any, hook: Any, y: Any, x: Tensor) -> Tensor:
    """What a hook made of `x`: None leaves it as it is, anything else must be like it.

    Args:
        point: the hook point.
        hook: the hook; None for whatever is on the point.
        y: what came back.
        x: what was given.

    Raises:
        ValueError: another shape, dtype, device or layout, or no tensor.
    """
    if y is None:
        return x
    if not isinstance(y, Tensor) or _form(y) != _form(x):
        got = _shown(y) if isinstance(y, Tensor) else type(y).__name__
        name = hook_names(point) if hook is None else name_of(hook)
        raise ValueError(
            f"a hook on {point.name} ({name}) returned {got}: expected {_shown(x)}; return a tensor "
            "like the one given, or None."
        )
    return y


def _form(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.dtype, x.device, x.layout


def _shown(x: Tensor) -> str:
    layout = "" if x.layout is torch.strided else f" {x.layout}"
    return f"{tuple(x.shape)} {x.dtype} on {x.device}{layout}"


def fire(
    run: Run, point: Point, x: Shaped[Tensor, "*any"], forward: Forward
) -> Shaped[Tensor, "*any"]:
    """Run the hooks of a point; what comes back must have the shape and dtype of what went in.

    Raises:
        ValueError: it has another one.
    """
    before, point.ctx["tokens"] = point.ctx.get("tokens"), forward.tokens
    if is_compiling():
        return _run_hooks(point, x)
    run.here.firing += 1
    try:
        return _run_hooks(point, x)
    finally:
        run.here.firing -= 1
        if run.depth > 1:  # a hook of this point may have started the forward
            point.ctx["tokens"] = before


def fire_and_compare(
    run: Run, point: Point, x: Shaped[Tensor, "*any"], forward: Forward
) -> tuple[Shaped[Tensor, "*any"], bool]:
    """Run the hooks of a point; return what they made of `x` and whether that is an edit.

    Every hook point uses this test. It compares bits. So it sees edits in place, through `.data` or
    `.numpy()`, and in inference mode, and NaN of the model's own is no edit.
    """
    compare = point.in_place and not is_compiling()
    before = x.detach().clone() if compare else None
    y = fire(run, point, x, forward)
    if y is not x:
        return y, True
    return y, point.in_place if before is None else not _same_bits(before, y)


# NaN differs from itself, so bits are compared as integers, by their bytes.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _same_bits(a: Shaped[Tensor, "*any"], b: Shaped[Tensor, "*any"]) -> bool:
    kind = _INTEGERS[a.element_size()]
    return torch.equal(a.view(kind), b.detach().view(kind))


def _run_hooks(point: Point, x: Tensor) -> Tensor:
    """What the hooks of a point make of a tensor."""
    if point.plain is None:
        return check_returned(point, None, point(x), x)
    # One after the other: torch's way through a module takes longer, and breaks a graph.
    for hook in point.plain:
        x = check_returned(point, hook, hook(x, hook=point), x)
    return x
