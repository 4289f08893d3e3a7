"""The seam: how hook points reach inside attention.

At every call an attention module of `transformers` looks its attention function up in one table, by the
name in the model's configuration. `install` wraps that look-up once: the function that the module would
have run is handed to `attention`, which runs it as it is unless the module carries hook points that are
in use. The configuration keeps its name, so no branch of a model changes.

A layer with hooks on its scores or pattern computes the hooked rows in float32 at least:
scores -> mask -> hook_attn_scores -> mask -> softmax -> hook_pattern -> values -> hook_z.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from textwrap import shorten
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.compiler import is_compiling
from transformer_lens.hook_points import HookPoint, LensHandle

from rvelens.hooks.rows import MASK_ENFORCED, MASKED, N_ROWS
from rvelens.seam.forward import Forward, Run
from rvelens.tokens.masks import hidden_by

# Where torch keeps the hooks of a module.
_TORCH_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
# Where an attention module keeps what stands in for its attention function.
_ATTRIBUTE = "_rvelens_hooks"
# Arguments that change the scores in ways which the opened rows do not compute.
_UNSUPPORTED = {
    "softcap": "soft-capped scores",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
}


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


def edits_in_place(hook: Any) -> bool:
    """Whether a hook may edit the tensor that it is given.

    A class of hooks that returns a copy, or only reads, declares `in_place = False`. The declaration
    holds for its own `__call__`: a subclass that overrides `__call__` has to declare it again.
    """
    for kind in type(hook).__mro__:
        if "in_place" in vars(kind):
            return bool(vars(kind)["in_place"])
        if "__call__" in vars(kind):
            return True
    return True


class AttentionHooks(nn.Module):
    """The hook points of one layer, `blocks.{layer}.attn`.

    - `hook_rot_q` [batch query head d_head] and `hook_rot_k` [batch key kv_head d_head]: what the
      attention function gets.
    - `hook_attn_scores` [batch head query key]: scaled q.k, after the mask (masked keys hold the
      lowest finite number), before softmax. The mask is applied again after the hooks, unless
      `HookedLVLM.enforce_mask` is False.
    - `hook_pattern` [batch head query key]: after softmax.
    - `hook_z` [batch query head d_head]: each head's output for every row, before the output
      projection.

    Under `query_rows="last"` the query axis of scores and pattern has length 1.
    `rvelens.seam.points` lists the points of a layer that are read elsewhere.
    """

    def __init__(self, run: Run, layer: int) -> None:
        super().__init__()
        self.hook_rot_q = Point()
        self.hook_rot_k = Point()
        self.hook_attn_scores = Point()
        self.hook_pattern = Point()
        self.hook_z = Point()
        self.layer = layer
        self.run: Run = run
        self.on = False
        self.on_change: Callable[[Point], None] | None = None
        first = self.hook_rot_q, self.hook_rot_k
        # A plain attribute, which is read in every forward: modules look theirs up slowly.
        self.points: tuple[Point, ...] = (
            *first, self.hook_attn_scores, self.hook_pattern, self.hook_z
        )  # fmt: skip
        for point in self.points:
            point.on_change = self._note
        self.checked: Any = None  # the code of the attention function that the self-check saw
        disable: Any = torch.compiler.disable
        self._attend_uncompiled = disable(self._attend)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Hooks belong to the model that was wrapped: its copies and pickles hold None instead."""
        return type(None), ()

    @property
    def in_use(self) -> bool:
        """Whether any hook is on in the attention function's place."""
        return self.on

    def _note(self, point: Point) -> None:
        self.on = any(point.on for point in self.points)
        self.run.note_use(self, self.on)
        if self.on_change is not None:
            self.on_change(point)

    @property
    def rows_in_use(self) -> bool:
        """Whether any hook is on the scores or the pattern."""
        return _has_hooks(self.hook_attn_scores) or _has_hooks(self.hook_pattern)

    def attend(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Attention of one layer with the hooks that are on.

        Raises:
            NotImplementedError: attention that the opened rows do not compute.
            RuntimeError: the layer runs outside of a forward of the model.
        """
        if is_compiling() and not self.run.in_step:
            return self._attend_uncompiled(call)
        return self._attend(call)

    def _attend(self, call: Call) -> tuple[Tensor, Tensor | None]:
        forward = self.run.forward_at(self.hook_z.name)
        if not forward.hooked:
            return call.original()
        if not is_compiling():
            self._check(call, forward)
        call.refuse_paged(self.hook_z.name)
        call.query = self._fire_rotated(self.hook_rot_q, call.query, forward)
        call.key = self._fire_rotated(self.hook_rot_k, call.key, forward)
        if not self.rows_in_use:
            z, weights = call.original()
            return (self._fire_z(z, forward) if _has_hooks(self.hook_z) else z), weights
        call.refuse_inexact(self.hook_attn_scores.name)
        z, weights = self._open(call, forward)
        return (self._fire_z(z, forward) if _has_hooks(self.hook_z) else z), weights

    def _check(self, call: Call, forward: Forward) -> None:
        """Raise RuntimeError for a layer that runs again, or otherwise than the self-check saw it."""
        if self.layer in forward.fired:
            raise RuntimeError(
                f"{self.hook_z.name} runs twice in a forward: expected one attention module a "
                "layer; wrap the model again after its layers were changed."
            )
        forward.fired.add(self.layer)
        if self.checked is not None and code_of(call.function) is not self.checked:
            self.run.is_changed = True
            raise RuntimeError(
                f"{self.hook_z.name} would run with another attention function than the self-check "
                f"saw under {call.name!r}: expected the same; turn the hooks on again to check it."
            )

    def _open(self, call: Call, forward: Forward) -> tuple[Tensor, Tensor | None]:
        run, point = self.run, self.hook_attn_scores
        n_rows = call.query.shape[2]
        row = run.row_of(forward, n_rows, point.name)
        every = run.query_rows == "all" or n_rows == 1
        with call.full_precision():
            scores, hidden = call.scores(every, row)
            edited, scores_edited = scores, False
            if _has_hooks(point):
                # A hook before another one may hide keys as well, and no mask hides those again.
                point.ctx[MASKED] = hidden is not None or point.several
                point.ctx[MASK_ENFORCED] = run.enforce_mask and not point.several
                point.ctx[N_ROWS] = n_rows
                edited, scores_edited = self._fire_and_compare(point, scores, forward)
            if scores_edited and hidden is not None:
                edited = _masked_again(edited, hidden, run.enforce_mask)
            pattern, pattern_edited = self._fire_and_compare(
                self.hook_pattern, edited.softmax(dim=-1), forward
            )
        if not (scores_edited or pattern_edited or pattern.requires_grad):
            return call.original()  # the hooks only looked: the model's own rows stay
        run.keep(self.hook_attn_scores, pattern)
        with call.full_precision():
            z = call.mixed(pattern)
        if every:
            return z, call.as_weights(pattern)
        whole, weights = call.original()
        if weights is not None:
            shown = pattern.to(weights.dtype).transpose(1, 2)
            weights = _put_row(weights.transpose(1, 2), shown, row).transpose(1, 2)
        return _put_row(whole, z.to(whole.dtype), row), weights

    def _fire_and_compare(self, point: Point, x: Tensor, forward: Forward) -> tuple[Tensor, bool]:
        """Run the hooks of a point; see `fire_and_compare`."""
        return fire_and_compare(self.run, point, x, forward)

    def _fire_rotated(
        self, point: Point, x: Float[Tensor, "batch head query d_head"], forward: Forward
    ) -> Float[Tensor, "batch head query d_head"]:
        if not _has_hooks(point):
            return x
        # A copy: the cache holds keys for the steps to come, and a projection may show the same tensor.
        shown = x.transpose(1, 2).clone()
        y, edited = self._fire_and_compare(point, shown, forward)
        if edited:
            self.run.keep(point, y)
        return y.transpose(1, 2) if edited or y.requires_grad else x

    def _fire_z(
        self, z: Float[Tensor, "batch query head d_value"], forward: Forward
    ) -> Float[Tensor, "batch query head d_value"]:
        y, edited = self._fire_and_compare(self.hook_z, z, forward)
        if edited:
            self.run.keep(self.hook_z, y)
        return y


@dataclass(eq=False)
class Call:
    """One call of a layer's attention function, as `transformers` makes it.

    Queries, keys and values come after RoPE, QK-norm and the cache update.

    Attributes:
        function: what the module would have run.
        name: the attention implementation in the model's configuration.
        mask: additive, or true where a row may look; None: causal under SDPA, no mask in eager mode.
    """

    function: Callable[..., tuple[Tensor, Tensor | None]]
    name: str | None
    module: nn.Module
    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_value"]
    mask: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def original(self) -> tuple[Float[Tensor, "batch query head d_value"], Tensor | None]:
        """What the model computes by itself: every row of z, and the weights in eager mode."""
        return self.function(
            self.module, self.query, self.key, self.value, self.mask, *self.args, **self.kwargs
        )

    def refuse_inexact(self, point: str | None) -> None:
        """Raise NotImplementedError where the opened rows would not be what the model computes."""
        reason = next((f"uses {_UNSUPPORTED[n]}" for n in _UNSUPPORTED if self._given(n)), None)
        if self.name not in ("eager", "sdpa") or self.args:
            reason = f"runs under the attention implementation {self.name!r}"
        if reason is not None:
            raise NotImplementedError(
                f"{type(self.module).__name__} {reason}, which {point} does not compute: expected "
                "plain softmax attention under 'sdpa' or 'eager'; load the model with one of them, or "
                "remove the hooks on scores and pattern."
            )

    def refuse_paged(self, point: str | None) -> None:
        """Raise NotImplementedError under a paged cache, which packs the rows of several prompts."""
        if self._given("cache") or str(self.name).startswith("paged|"):
            raise NotImplementedError(
                f"{point} has hooks, and a paged cache packs the rows of several prompts into one: "
                "expected a forward of one row a prompt and step; use generate, or remove the hooks "
                "before generate_batch."
            )

    def _given(self, name: str) -> bool:
        return self.kwargs.get(name) is not None

    @property
    def _narrow(self) -> torch.dtype | None:
        """The dtype that autocast computes attention in; None without autocast."""
        kind = self.query.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    def full_precision(self) -> AbstractContextManager[Any]:
        """No autocast, which would narrow the scores."""
        if self._narrow is None:
            return nullcontext()
        return torch.autocast(self.query.device.type, enabled=False)

    @property
    def _wide(self) -> torch.dtype:
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    def _widened(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """In float32 at least, after the rounding that autocast gives the model's own attention."""
        narrow = self._narrow
        return (x if narrow is None else x.to(narrow)).to(self._wide)

    def scores(
        self, every: bool, row: Int[Tensor, " batch"] | None
    ) -> tuple[
        Float[Tensor, "batch head row key"], Bool[Tensor, "mask_batch mask_head row key"] | None
    ]:
        """Masked scores of every row or of one, and the keys that the mask hides.

        Args:
            every: compute every row.
            row: where `every` is False, the row of each sample; None for the final one.
        """
        query = self.query if every else _take(self.query, row)
        mask = self._explicit_mask(every, row)
        batch, head, n_row, _ = query.shape
        kv_head, n_key = self.key.shape[1:3]
        scaling = self.kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        # Query heads that share a key head lie side by side: their rows become one matrix.
        grouped = query.reshape(batch * kv_head, -1, query.shape[3])
        keys = self.key.flatten(0, 1).transpose(1, 2)
        scores = self._products(grouped, keys, scaling).view(batch, head, n_row, n_key)
        if mask is None:
            return scores, None
        hidden = hidden_by(mask)
        scores = scores if mask.dtype == torch.bool else scores + mask
        return scores.masked_fill(hidden, torch.finfo(self._wide).min), hidden

    def _products(
        self,
        query: Float[Tensor, "group row d_head"],
        key: Float[Tensor, "group d_head key"],
        scaling: float,
    ) -> Float[Tensor, "group row key"]:
        """scaling * q.k in float32 at least."""
        if self._multiplies_narrow:
            return torch.bmm(query, key, out_dtype=torch.float32).mul_(scaling)
        query, key = self._widened(query), self._widened(key)
        # Product and scaling at once; with beta 0 the first argument is not read.
        return torch.baddbmm(query[:, :1, :1], query, key, beta=0, alpha=scaling)

    @property
    def _multiplies_narrow(self) -> bool:
        """Whether one kernel makes float32 of 16 bits, so that no wide copy of the keys is needed.

        CUDA alone has it, since torch 2.8; no gradient is documented. See `out_dtype` in
        https://docs.pytorch.org/docs/stable/generated/torch.bmm.html
        """
        recorded = torch.is_grad_enabled() and (self.query.requires_grad or self.key.requires_grad)
        narrow = self.query.dtype in (torch.float16, torch.bfloat16)
        plain = self._narrow is None and self.query.dtype == self.key.dtype
        known = hasattr(torch.ops.aten.bmm, "dtype") and not is_compiling()
        return self.query.is_cuda and narrow and plain and known and not recorded

    def mixed(
        self, pattern: Float[Tensor, "batch head row key"]
    ) -> Float[Tensor, "batch row head d_value"]:
        """The values in the proportions of the pattern, in the dtype of the model's own z."""
        batch, head, n_row, n_key = pattern.shape
        dropout = float(self.kwargs.get("dropout") or 0.0)
        if dropout and self.module.training:
            pattern = nn.functional.dropout(pattern, dropout)
        # In the dtype of the model, as its own eager attention: float32 copies of values cost more.
        value = self.value if self._narrow is None else self.value.to(self._narrow)
        weights = pattern.to(value.dtype).reshape(batch * value.shape[1], -1, n_key)
        z = weights @ value.flatten(0, 1)
        return z.view(batch, head, n_row, value.shape[3]).transpose(1, 2)

    def as_weights(
        self, pattern: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"] | None:
        """The second value that the model's own function returns: weights in eager mode alone."""
        return pattern.to(self.query.dtype) if self.name == "eager" else None

    def _explicit_mask(
        self, every: bool, row: Int[Tensor, " batch"] | None
    ) -> (
        Bool[Tensor, "mask_batch mask_head row key"]
        | Float[Tensor, "mask_batch mask_head row key"]
        | None
    ):
        """The mask that the model's own function would apply, of all rows or of the given one.

        Under SDPA no mask and several rows mean causal, aligned top left.
        """
        n_query, n_key = self.query.shape[2], self.key.shape[2]
        mask: Tensor | None = self.mask
        if mask is not None:
            mask = mask[..., :n_key]
        if mask is not None or n_query == 1 or not self._is_causal:
            return mask if every else _take(mask, row)
        keys = torch.arange(n_key, device=self.query.device)
        if every:
            return (keys <= torch.arange(n_query, device=keys.device)[:, None])[None, None]
        # One row alone: a square of rows and keys, even of bits, would outgrow all that is recorded.
        if row is None:
            return None if n_key == n_query else (keys < n_query)[None, None, None]
        return (keys <= row.to(keys.device)[:, None])[:, None, None]

    @property
    def _is_causal(self) -> bool:
        """Whether no mask means causal: the rule of transformers' SDPA function."""
        given = self.kwargs.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if given is None else given
        return self.name == "sdpa" and bool(causal)


def install() -> None:
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
        return partial(attention, function, attn_implementation)


def attention(
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


def code_of(function: Any) -> Any:
    """What tells an attention function from another: its code, where it is made anew at each call."""
    return getattr(function, "__code__", function)


def hooks_of(module: nn.Module) -> Any:
    """What stands in for a module's attention function, if anything does."""
    return module.__dict__.get(_ATTRIBUTE)


def attach(module: nn.Module, hooks: Any) -> None:
    """Let hook points, or anything with `in_use` and `attend`, stand in for a module's attention."""
    module.__dict__[_ATTRIBUTE] = hooks  # not a submodule: the model's own modules stay as they are


def check_returned(point: Any, hook: Any, y: Any, x: Tensor) -> Tensor:
    """What a hook made of `x`: None leaves it as it is, anything else must be like it.

    Args:
        point: the hook point.
        hook: the hook; None for whatever is on the point.
        y: what came back.
        x: what was given.

    Raises:
        ValueError: another shape or dtype, or no tensor.
    """
    if y is None:
        return x
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        got = f"{tuple(y.shape)} {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        name = _hook_names(point) if hook is None else name_of(hook)
        raise ValueError(
            f"a hook on {point.name} ({name}) returned {got}: expected "
            f"{tuple(x.shape)} {x.dtype}; return a tensor like the one given, or None."
        )
    return y


def _take(
    x: Float[Tensor, "batch head query last"] | Bool[Tensor, "batch head query last"] | None,
    row: Int[Tensor, " batch_rows"] | None,
) -> Any:
    """One row of the query axis of each sample; the final one where `row` is None."""
    if x is None or row is None:
        return None if x is None else x[:, :, -1:]
    row = row.to(x.device)
    if x.shape[0] == 1:
        return x[0][:, row].transpose(0, 1)[:, :, None]
    return x[torch.arange(x.shape[0], device=x.device), :, row][:, :, None]


def _put_row(
    z: Float[Tensor, "batch query head last"],
    opened: Float[Tensor, "batch 1 head last"],
    row: Int[Tensor, " batch"] | None,
) -> Float[Tensor, "batch query head last"]:
    """Write the opened row back; a copy where autograd still needs the model's own output."""
    if z.requires_grad or opened.requires_grad:
        z = z.clone()
    if row is None:
        z[:, -1:] = opened
    else:
        z[torch.arange(z.shape[0], device=z.device), row.to(z.device)] = opened[:, 0]
    return z


def _masked_again(
    edited: Float[Tensor, "batch head query key"],
    hidden: Bool[Tensor, "#batch #head query key"],
    everywhere: bool,
) -> Float[Tensor, "batch head query key"]:
    """Hide again what the mask hides: `everywhere`, or in rows of padding alone, which see no key.

    Hidden keys get minus infinity, so that they stay below whatever a hook makes of the others. Rows of
    padding get the lowest finite number, so that they do not end as NaN.
    """
    lowest = torch.finfo(edited.dtype).min
    padding = hidden.all(dim=-1, keepdim=True)
    if not everywhere:
        return edited.masked_fill(padding, lowest)
    floor = torch.full_like(padding, -torch.inf, dtype=edited.dtype).masked_fill(padding, lowest)
    return torch.where(hidden, floor, edited)


def fire(
    run: Run, point: Point, x: Shaped[Tensor, "*any"], forward: Forward
) -> Shaped[Tensor, "*any"]:
    """Run the hooks of a point; what comes back must have the shape and dtype of what went in.

    Raises:
        ValueError: it has another one.
    """
    before, point.ctx["tokens"] = point.ctx.get("tokens"), forward.tokens
    if is_compiling():
        return _run_plain(point, x)
    run.here.firing += 1
    try:
        if point.plain is not None:  # without torch's way through a module, which takes longer
            return _run_plain(point, x)
        y = point(x)
    finally:
        run.here.firing -= 1
        if run.depth > 1:  # a hook of this point may have started the forward
            point.ctx["tokens"] = before
    return check_returned(point, None, y, x)


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


def _run_plain(point: Point, x: Tensor) -> Tensor:
    """The hooks of a point, one after the other."""
    if point.plain is None:
        return check_returned(point, None, point(x), x)
    for hook in point.plain:
        x = check_returned(point, hook, hook(x, hook=point), x)
    return x


def _has_hooks(point: Point) -> bool:
    return point.on if is_compiling() else point.in_use


def _hook_names(point: HookPoint) -> str:
    return ", ".join(name_of(handle.user_hook) for handle in point.fwd_hooks) or "torch hook"


def name_of(hook: Any) -> str:
    """A hook's name for a message: never the whole of a tensor that it holds."""
    return getattr(hook, "__name__", None) or shorten(repr(hook), 80, placeholder=" ...")
