"""Which module of a block computes each hook point. What modules compute decides, not their names.

One forward is recorded. `hook_attn_out` is the output for which `hook_resid_pre + hook_attn_out` is
the input of a later module of the block. That input is `hook_resid_mid`. So `hook_attn_out` is what is
added, after any norm. A point of a branch that is scaled as it is added is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rvelens.seam.forward import Run
from rvelens.seam.taps import Input, InputInPlace, Output, Scale, TapSource
from rvelens.seam.watching import BlockRecord, ModuleCall

# A point's source, or the reason why it has none, as part of a sentence.
SourceOrReason = TapSource | str


def close(
    a: Float[Tensor, "*a"],
    b: Float[Tensor, "*b"],
    *terms: Float[Tensor, ...],
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
    """The residual stream of a block in a recorded forward.

    Attributes:
        record: the block in that forward.
        attention: its attention module; None if it has none.
        run: the forward in progress, which tells the rows of a sample in flat tensors.
    """

    record: BlockRecord
    attention: nn.Module | None
    run: Run

    def __post_init__(self) -> None:
        whole = self.record.whole
        assert whole is not None
        assert whole.x is not None
        assert whole.y is not None
        self.x, self.y = whole.x, whole.y
        self.calls = [call for call in self.record.calls if self._like(call.y) is not None]
        # The branch of attention begins at the module that holds it.
        holding = (n for n, call in enumerate(self.calls) if self._is_attention(call.module))
        self.start = next(holding, 0)
        self.attends = self.attention is not None and bool(self.calls)

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
        y = self._like(self.calls[n].y)
        assert y is not None
        return y

    def _middle(self) -> tuple[int, int] | None:
        """The last call whose output plus the block's input is a later call's input, and that call."""
        for j in range(self.start + 1, len(self.calls)):
            mid = self._like(self.calls[j].x)
            for i in reversed(range(self.start, j)):
                if mid is not None and not self._tiny(i) and is_sum(mid, self.x, self._out(i)):
                    return i, j
        return None

    def _tiny(self, n: int) -> bool:
        """Whether an output is lost in the rounding of the stream, so that its sum proves nothing."""
        return is_lost(self._out(n), self.x)

    def _last(self, start: int, *before: Tensor) -> int | None:
        """The last call from `start` on whose output and `before` sum to the block's output."""
        calls = reversed(range(start, len(self.calls)))
        return next(
            (n for n in calls if not self._tiny(n) and is_sum(self.y, *before, self._out(n))), None
        )

    def _side_by_side(self) -> tuple[int, int] | None:
        """Two calls whose outputs are both added to the block's input."""
        for i in reversed(range(self.start, len(self.calls))):
            k = None if self._tiny(i) else self._last(0, self.x, self._out(i))
            if k is not None and k != i:
                return i, k
        return None

    def sources(self) -> dict[str, SourceOrReason]:
        """Sources of the block's points by name."""
        sources: dict[str, SourceOrReason] = {
            "hook_resid_pre": Input(self.record.whole.module),  # type: ignore[union-attr]
            "hook_resid_post": Output(self.record.whole.module),  # type: ignore[union-attr]
        }
        sources |= self._branches()
        first = next((c for c in self.calls if c.x is not None and self._gets(c, self.x)), None)
        sources["ln1.hook_scale"] = "no norm gets its input" if first is None else norm_of(first)
        middle = self._middle()
        sources["ln2.hook_scale"] = (
            "no norm gets hook_resid_mid" if middle is None else norm_of(self.calls[middle[1]])
        )
        if not self.attends:
            del sources["hook_attn_out"]
        return sources

    def _gets(self, call: ModuleCall, x: Tensor) -> bool:
        got = self._like(call.x)
        return got is not None and close(got, x)

    def _branches(self) -> dict[str, SourceOrReason]:
        middle = self._middle()
        if middle is not None:
            i, j = middle
            mid = self._like(self.calls[j].x)
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
        y = self.calls[n].y
        flat = y is not None and y.shape != self.x.shape
        return Output(self.calls[n].module, partial(by_sample, self.run) if flat else None)

    def _in_place(self, n: int) -> InputInPlace:
        x = self.calls[n].x
        flat = x is not None and x.shape != self.x.shape
        return InputInPlace(self.calls[n].module, partial(by_sample, self.run) if flat else None)


def by_sample(run: Run, x: Shaped[Tensor, "rows d_model"]) -> Shaped[Tensor, "batch query d_model"]:
    """A view of the rows of all samples, sample by sample."""
    return x.view(-1, run.forward_at(None).n_query, x.shape[-1])


def norm_of(call: ModuleCall) -> SourceOrReason:
    """The scale of a norm, if what it returns is its input over that scale, times fixed weights."""
    eps = next((getattr(call.module, n) for n in _EPS if hasattr(call.module, n)), None)
    if call.x is None or call.y is None or call.x.shape != call.y.shape or eps is None:
        return "no norm with a scale is there"
    bias = getattr(call.module, "bias", None)
    # Norms of transformers compute in float32, in models of float64 too.
    whole = call.y.float() if call.y.dtype == torch.float64 else call.y
    y = widen(whole) if bias is None else widen(whole) - widen(bias)
    for centred in (False, True):
        scale = Scale(call.module, centred, float(eps))
        x = widen(call.x)
        hat = (x - x.mean(dim=-1, keepdim=True) if centred else x) / scale.of(x)
        hat, y, x = hat.flatten(0, -2), y.flatten(0, -2), (x / scale.of(x)).flatten(0, -2)
        weight = (hat * y).sum(dim=0) / hat.pow(2).sum(dim=0).clamp(min=1e-12)
        shift = torch.zeros_like(weight) if bias is None else widen(bias)
        terms = [x * weight, shift.expand_as(x)]
        if centred:  # the rounding of the mean is that of the whole row
            terms.append(x.abs().amax(dim=-1, keepdim=True) * weight)
        if close(hat * weight + shift, whole.flatten(0, -2), *terms, times=8):
            return scale
    return "its norm does not divide by one scale"


_EPS = ("variance_epsilon", "eps", "norm_eps", "epsilon")


# -- queries, keys and values ----------------------------------------------------------------------

_SEPARATE = {"q": ("q_proj", "query"), "k": ("k_proj", "key"), "v": ("v_proj", "value")}
_FUSED = ("qkv_proj", "query_key_value", "qkv", "c_attn")


def whole_heads(n: int, x: Shaped[Tensor, "*rows d_heads"]) -> Shaped[Tensor, "*rows head d_head"]:
    """Heads in a row: all numbers of the first head, then all of the next."""
    return x.unflatten(-1, (n, -1))


def first_half(n: int, x: Shaped[Tensor, "*rows d_heads"]) -> Shaped[Tensor, "*rows head d_head"]:
    """The first half of each head. The second half is its gate."""
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
    """Heads in a row, from a position of the projection on."""
    return x[..., start : start + n * d].unflatten(-1, (n, d))


@dataclass(frozen=True, eq=False)
class Part:
    """A view of a projection that may be the queries, keys or values.

    Attributes:
        sure: the attention function gets it unchanged, or rotated by its position.
    """

    source: Output
    sure: bool


def projections(record: BlockRecord, attention: nn.Module) -> dict[str, Part | str]:
    """The projections of queries, keys and values, by "q", "k" and "v".

    Where one projection serves all three, the values tell the order of its parts: positions rotate
    queries and keys alone.
    """
    calls = {name: _call_of(record, module) for name, module in attention.named_children()}
    values = _projection("v", record, calls, None)
    view = values.source.view if isinstance(values, Part) else None
    order = view.func if isinstance(view, partial) else None
    return {p: _projection(p, record, calls, order) for p in ("q", "k")} | {"v": values}


def _call_of(record: BlockRecord, module: nn.Module) -> ModuleCall | None:
    return next((call for call in record.inner if call.module is module), None)


def _projection(
    part: str, record: BlockRecord, calls: dict[str, ModuleCall | None], order: Any
) -> Part | str:
    states = {"q": record.query, "k": record.key, "v": record.value}[part]
    if states is None or record.query is None or record.key is None:
        return "its attention function was not called"
    n, d = states.shape[1], states.shape[3]
    call = next((calls[name] for name in _SEPARATE[part] if calls.get(name) is not None), None)
    views: list[partial[Tensor]] = []
    if call is not None:
        views = [partial(whole_heads, n), *([partial(first_half, n)] if part == "q" else [])]
    else:
        call = next((calls[name] for name in _FUSED if calls.get(name) is not None), None)
        number = "qkv".index(part)
        n_query, n_key = record.query.shape[1], record.key.shape[1]
        start = (0, n_query, n_query + n_key)[number] * d
        views = [partial(part_of_head, number, n), partial(part_of_all, number, n)]
        views.append(partial(slice_of_all, start, n, d))
        views = [view for view in views if order in (None, view.func)]
    if call is None or call.y is None:
        return "it has no projection of its own"
    return _fitting(call, views, states)


def _fitting(
    call: ModuleCall, views: list[partial[Tensor]], states: Float[Tensor, "batch head query d_head"]
) -> Part | str:
    assert call.y is not None
    expected = states.transpose(1, 2).flatten(0, 1)
    shown = []
    for view in views:
        try:
            x = view(call.y).flatten(0, -3)
        except RuntimeError:
            continue
        if x.shape == expected.shape:
            shown.append((view, x))
    for view, x in shown:
        lengths = (widen(y).norm(dim=-1).to(x.dtype) for y in (x, expected))
        if close(x, expected) or close(*lengths, times=8):
            return Part(Output(call.module, view), True)
    if len(shown) == 1:
        return Part(Output(call.module, shown[0][0]), False)
    return "its heads are not those of a projection"
