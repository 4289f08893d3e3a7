"""Where the hook points of a block are: found by what its modules compute, not by their names.

One forward is watched. `hook_attn_out` is the output of the module for which
`hook_resid_pre + hook_attn_out` is what another module of the block gets: `hook_resid_mid`. So a branch
that is scaled or normed before it is added shows what is added, or is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rvelens.run import Run
from rvelens.taps import Input, InputInPlace, Output, Scale, Source
from rvelens.watching import Seen, Step

# A point's source, or the reason why it has none, as part of a sentence.
Found = Source | str


def close(
    a: Float[Tensor, "*a"],
    b: Float[Tensor, "*b"],
    *terms: Float[Tensor, "..."],
    times: int = 2,
) -> bool:
    """Whether each pair of numbers is equal up to the rounding of a few operations.

    Every pair has its own tolerance. One large number in a residual stream hides no difference.

    Args:
        a, b: what is compared; the precision is that of `b`.
        terms: numbers that `a` or `b` was computed from, whose rounding counts too.
        times: units of rounding, of the largest number of a pair and of its terms.
    """
    if a.shape != b.shape:
        return False
    eps = torch.finfo(b.dtype).eps
    a, b = widen(a), widen(b)
    size = torch.maximum(a.abs(), b.abs())
    for term in terms:
        size = torch.maximum(size, widen(term).abs())
    return bool(((a - b).abs() <= times * eps * size).all())


def widen(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_sum(total: Float[Tensor, "*shape"], *terms: Float[Tensor, "*shape"]) -> bool:
    """Whether a tensor is the sum of others, up to rounding."""
    return close(sum(map(widen, terms[1:]), widen(terms[0])), total, *terms)


def is_lost(x: Float[Tensor, "*shape"], total: Float[Tensor, "*shape"]) -> bool:
    """Whether nearly all of `x` is lost in the rounding of a sum, so that it proves nothing."""
    limit = 8 * torch.finfo(total.dtype).eps * widen(total).abs()
    return float((widen(x).abs() > limit).float().mean()) < 1 / 32


@dataclass(eq=False)
class Block:
    """A block as a forward showed it.

    Attributes:
        attention: its attention module; None if it has none.
        run: the forward in progress, which tells how many rows flat tensors hold a sample.
    """

    seen: Seen
    attention: nn.Module | None
    run: Run

    def __post_init__(self) -> None:
        whole = self.seen.whole
        assert whole is not None
        assert whole.x is not None
        assert whole.y is not None
        self.x, self.y = whole.x, whole.y
        self.steps = [step for step in self.seen.steps if self._like(step.y) is not None]
        # The branch of attention begins at the module that holds it.
        holding = (n for n, step in enumerate(self.steps) if self._is_attention(step.module))
        self.start = next(holding, 0)
        self.attends = self.attention is not None and bool(self.steps)

    def _is_attention(self, module: nn.Module) -> bool:
        return any(m is self.attention for m in module.modules())

    def _like(self, x: Tensor | None) -> Tensor | None:
        """A tensor in the shape of the block's input; None where it cannot have it."""
        if x is None or x.numel() != self.x.numel() or x.shape[-1] != self.x.shape[-1]:
            return None
        if not x.is_floating_point():
            return None
        return x.view(self.x.shape)

    def _out(self, n: int) -> Tensor:
        y = self._like(self.steps[n].y)
        assert y is not None
        return y

    def _middle(self) -> tuple[int, int] | None:
        """The last step whose output plus the block's input is what a later one gets, and that one."""
        for j in range(self.start + 1, len(self.steps)):
            mid = self._like(self.steps[j].x)
            for i in reversed(range(self.start, j)):
                if mid is not None and not self._tiny(i) and is_sum(mid, self.x, self._out(i)):
                    return i, j
        return None

    def _tiny(self, n: int) -> bool:
        """Whether an output is lost in the rounding of the stream, so that nothing can be told."""
        return is_lost(self._out(n), self.x)

    def _last(self, start: int, *before: Tensor) -> int | None:
        """The last step from `start` on whose output makes the block's output of `before`."""
        steps = reversed(range(start, len(self.steps)))
        return next(
            (n for n in steps if not self._tiny(n) and is_sum(self.y, *before, self._out(n))), None
        )

    def _side_by_side(self) -> tuple[int, int] | None:
        """Two steps whose outputs are both added to the block's input."""
        for i in reversed(range(self.start, len(self.steps))):
            k = None if self._tiny(i) else self._last(0, self.x, self._out(i))
            if k is not None and k != i:
                return i, k
        return None

    def sources(self) -> dict[str, Found]:
        """Sources of the block's points by name."""
        found: dict[str, Found] = {
            "hook_resid_pre": Input(self.seen.whole.module),  # type: ignore[union-attr]
            "hook_resid_post": Output(self.seen.whole.module),  # type: ignore[union-attr]
        }
        found |= self._branches()
        first = next((s for s in self.steps if s.x is not None and self._gets(s, self.x)), None)
        found["ln1.hook_scale"] = "no norm gets its input" if first is None else norm_of(first)
        middle = self._middle()
        found["ln2.hook_scale"] = (
            "no norm gets hook_resid_mid" if middle is None else norm_of(self.steps[middle[1]])
        )
        if not self.attends:
            del found["hook_attn_out"]
        return found

    def _gets(self, step: Step, x: Tensor) -> bool:
        got = self._like(step.x)
        return got is not None and close(got, x)

    def _branches(self) -> dict[str, Found]:
        middle = self._middle()
        if middle is not None:
            i, j = middle
            mid = self._like(self.steps[j].x)
            assert mid is not None
            k = self._last(j, mid)
            return {
                "hook_attn_out": self._output(i),
                "hook_resid_mid": self._in_place(j),
                "hook_mlp_out": "what it adds last is not the output of one of its modules"
                if k is None
                else self._output(k),
            }
        both, alone = self._side_by_side(), self._last(self.start, self.x)
        if both is not None:
            reason = "its branches run side by side, with no sum between them"
            first, second = (self._output(n) for n in both)
            return {"hook_attn_out": first, "hook_resid_mid": reason, "hook_mlp_out": second}
        if alone is not None:
            reason = "it has a single branch"
            return {
                "hook_attn_out": self._output(alone),
                "hook_resid_mid": reason,
                "hook_mlp_out": reason,
            }
        reason = "what it adds to its input is not the output of one of its modules"
        return dict.fromkeys(("hook_attn_out", "hook_resid_mid", "hook_mlp_out"), reason)

    def _output(self, n: int) -> Output:
        y = self.steps[n].y
        flat = y is not None and y.shape != self.x.shape
        return Output(self.steps[n].module, partial(by_sample, self.run) if flat else None)

    def _in_place(self, n: int) -> InputInPlace:
        x = self.steps[n].x
        flat = x is not None and x.shape != self.x.shape
        return InputInPlace(self.steps[n].module, partial(by_sample, self.run) if flat else None)


def by_sample(run: Run, x: Shaped[Tensor, "rows d_model"]) -> Shaped[Tensor, "batch query d_model"]:
    """A view of the rows of all samples, sample by sample."""
    return x.view(-1, run.forward_at(None).n_query, x.shape[-1])


def norm_of(step: Step) -> Found:
    """The scale of a norm, if what it returns is its input over that scale, times fixed weights."""
    eps = next((getattr(step.module, n) for n in _EPS if hasattr(step.module, n)), None)
    if step.x is None or step.y is None or step.x.shape != step.y.shape or eps is None:
        return "no norm with a scale is there"
    bias = getattr(step.module, "bias", None)
    y = widen(step.y) if bias is None else widen(step.y) - widen(bias)
    for centred in (False, True):
        scale = Scale(step.module, centred, float(eps))
        x = widen(step.x)
        hat = (x - x.mean(dim=-1, keepdim=True) if centred else x) / scale.of(x)
        hat, y, x = hat.flatten(0, -2), y.flatten(0, -2), (x / scale.of(x)).flatten(0, -2)
        weight = (hat * y).sum(dim=0) / hat.pow(2).sum(dim=0).clamp(min=1e-12)
        shift = torch.zeros_like(weight) if bias is None else widen(bias)
        terms = [x * weight, shift.expand_as(x)]
        if centred:  # the rounding of the mean is that of the whole row
            terms.append(x.abs().amax(dim=-1, keepdim=True) * weight)
        if close(hat * weight + shift, step.y.flatten(0, -2), *terms, times=8):
            return scale
    return "its norm does not divide by one scale"


_EPS = ("variance_epsilon", "eps", "norm_eps", "epsilon")


# -- queries, keys and values ----------------------------------------------------------------------

_SEPARATE = {"q": ("q_proj", "query"), "k": ("k_proj", "key"), "v": ("v_proj", "value")}
_FUSED = ("qkv_proj", "query_key_value", "qkv", "c_attn")


def whole_heads(n: int, x: Shaped[Tensor, "*rows d_heads"]) -> Shaped[Tensor, "*rows head d_head"]:
    """Heads one behind the other."""
    return x.unflatten(-1, (n, -1))


def first_half(n: int, x: Shaped[Tensor, "*rows d_heads"]) -> Shaped[Tensor, "*rows head d_head"]:
    """Of each head the first half; the second is its gate."""
    x = x.unflatten(-1, (n, 2, -1))
    return x.select(-2, 0)


def part_of_all(
    part: int, n: int, x: Shaped[Tensor, "*rows d_heads"]
) -> Shaped[Tensor, "*rows head d_head"]:
    """All heads of queries, then all of keys, then all of values."""
    return x.unflatten(-1, (3, n, -1)).select(-3, part)


def part_of_head(
    part: int, n: int, x: Shaped[Tensor, "*rows d_heads"]
) -> Shaped[Tensor, "*rows head d_head"]:
    """Queries, keys and values of the first head, then of the next."""
    return x.unflatten(-1, (n, 3, -1)).select(-2, part)


def slice_of_all(
    start: int, n: int, d: int, x: Shaped[Tensor, "*rows d_heads"]
) -> Shaped[Tensor, "*rows head d_head"]:
    """Heads one behind the other, from some number on."""
    return x[..., start : start + n * d].unflatten(-1, (n, d))


@dataclass(frozen=True, eq=False)
class Part:
    """A view of a projection that may be the queries, keys or values.

    Attributes:
        sure: the attention function gets it as it is, or turned by its position.
    """

    source: Output
    sure: bool


def projections(seen: Seen, attention: nn.Module) -> dict[str, Part | str]:
    """Where queries, keys and values are projected, as "q", "k" and "v".

    Of one projection for all three, the values tell the order: they are not turned by their position.
    """
    steps = {name: _step_of(seen, module) for name, module in attention.named_children()}
    values = _projection("v", seen, steps, None)
    view = values.source.view if isinstance(values, Part) else None
    order = view.func if isinstance(view, partial) else None
    return {p: _projection(p, seen, steps, order) for p in ("q", "k")} | {"v": values}


def _step_of(seen: Seen, module: nn.Module) -> Step | None:
    return next((step for step in seen.inner if step.module is module), None)


def _projection(part: str, seen: Seen, steps: dict[str, Step | None], order: Any) -> Part | str:
    given = {"q": seen.query, "k": seen.key, "v": seen.value}[part]
    if given is None or seen.query is None or seen.key is None:
        return "its attention function was not called"
    n, d = given.shape[1], given.shape[3]
    step = next((steps[name] for name in _SEPARATE[part] if steps.get(name) is not None), None)
    views: list[partial[Tensor]] = []
    if step is not None:
        views = [partial(whole_heads, n), *([partial(first_half, n)] if part == "q" else [])]
    else:
        step = next((steps[name] for name in _FUSED if steps.get(name) is not None), None)
        number = "qkv".index(part)
        n_query, n_key = seen.query.shape[1], seen.key.shape[1]
        start = (0, n_query, n_query + n_key)[number] * d
        views = [partial(part_of_head, number, n), partial(part_of_all, number, n)]
        views.append(partial(slice_of_all, start, n, d))
        views = [view for view in views if order in (None, view.func)]
    if step is None or step.y is None:
        return "it has no projection of its own"
    return _fitting(step, views, given)


def _fitting(
    step: Step, views: list[partial[Tensor]], given: Float[Tensor, "batch head query d_head"]
) -> Part | str:
    assert step.y is not None
    wanted = given.transpose(1, 2).flatten(0, 1)
    shown = []
    for view in views:
        try:
            x = view(step.y).flatten(0, -3)
        except RuntimeError:
            continue
        if x.shape == wanted.shape:
            shown.append((view, x))
    for view, x in shown:
        lengths = (widen(y).norm(dim=-1).to(x.dtype) for y in (x, wanted))
        if close(x, wanted) or close(*lengths, times=8):
            return Part(Output(step.module, view), True)
    if len(shown) == 1:
        return Part(Output(step.module, shown[0][0]), False)
    return "its heads are not those of a projection"
