"""The seam: one attention function, registered with `transformers`, that runs three hook points.

A layer without hooks is handed to `transformers`' own SDPA function, untouched. A layer with a hook
on its scores or pattern has the asked rows recomputed in the open, in float32 at least:
scores -> mask -> hook_attn_scores -> softmax -> hook_pattern -> values -> hook_z.
"""

from __future__ import annotations

from textwrap import shorten
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from rvelens.run import Run

IMPLEMENTATION = "rvelens"
# What SDPA cannot express and the open rows below do not compute either.
_UNSUPPORTED = {
    "softcap": "soft-capped scores",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
}


class AttentionHooks(nn.Module):
    """The hook points of one layer, `blocks.{layer}.attn`.

    - `hook_attn_scores` [batch head query key]: scaled q.k, after the mask (masked keys hold the
      lowest finite number), before softmax.
    - `hook_pattern` [batch head query key]: after softmax.
    - `hook_z` [batch query head d_head]: each head's output for every row, before `o_proj`.

    Under `query_rows="last"` the query axis of the first two has length 1.

    A hook that moves the scores of masked keys unmasks them: S + |S| makes 0 of the lowest finite
    number, a score like any other. Edit where `scores > torch.finfo(scores.dtype).min` alone, or as
    `rvelens.hooks.LastRowHook` and `rvelens.hooks.visible_image` do.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.__dict__["run"] = run

    def fire(self, point: HookPoint, x: Tensor) -> Tensor:
        """Run a hook point; what comes back must have the shape and dtype of what went in."""
        run: Run = self.__dict__["run"]
        before, point.ctx["tokens"] = point.ctx.get("tokens"), run.tokens
        try:
            y = point(x)
        finally:
            if len(run.begun) > 1:  # a hook of this point may have started the forward
                point.ctx["tokens"] = before
        return returned(point, None, y, x)


def returned(point: Any, one: Any, y: Any, x: Tensor) -> Tensor:
    """What a hook made of `x`: nothing leaves it as it is, anything else must be like it.

    Args:
        point: the hook point.
        one: the hook; None for whatever is on the point.
        y: what came back.
        x: what was given.

    Raises:
        ValueError: another shape or dtype, or no tensor.
    """
    if y is None:
        return x
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        got = f"{tuple(y.shape)} {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        name = _hook_names(point) if one is None else name_of(one)
        raise ValueError(
            f"a hook on {point.name} ({name}) returned {got}: expected "
            f"{tuple(x.shape)} {x.dtype}; return a tensor like the one given, or None."
        )
    return y


_LAYERS: WeakKeyDictionary[nn.Module, AttentionHooks] = WeakKeyDictionary()


def register() -> None:
    """Make the attention function and its mask function known to `transformers`, once."""
    from transformers.masking_utils import sdpa_mask

    # A compiled graph would not notice hooks that come and go.
    eager = torch.compiler.disable(attention)
    transformers.AttentionInterface.register(IMPLEMENTATION, eager)
    transformers.AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def hooks_of(module: nn.Module) -> AttentionHooks | None:
    """The hook points that listen to an attention module, if any do."""
    return _LAYERS.get(module)


def listen(module: nn.Module, hooks: AttentionHooks) -> None:
    """Let hook points listen to an attention module."""
    _LAYERS[module] = hooks


def attention(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_value"],
    attention_mask: Bool[Tensor, "batch_or_1 head_or_1 query key"]
    | Float[Tensor, "batch_or_1 head_or_1 query key"]
    | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch query head d_value"], None]:
    """Attention as `transformers` calls it, after RoPE, QK-norm and the cache update."""
    # Here, since it loads what a model needs, and `import rvelens` need not wait for that.
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    hooks = _LAYERS.get(module)
    scores_hooked = hooks is not None and (
        _hooked(hooks.hook_attn_scores) or _hooked(hooks.hook_pattern)
    )
    if hooks is None or not (scores_hooked or _hooked(hooks.hook_z)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    run: Run = hooks.__dict__["run"]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not scores_hooked:
        z, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return _fire_z(hooks, z), None

    _refuse_unsupported(module, hooks, kwargs)
    dropout = dropout if module.training else 0.0
    all_rows = run.query_rows == "all" or query.shape[2] == 1
    mask = _explicit_mask(
        module, query, key, attention_mask, kwargs.get("is_causal"), None if all_rows else run
    )
    if all_rows:
        z = _open_rows(hooks, query, key, value, mask, scale, dropout)
    else:
        z, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        last = _open_rows(hooks, _take(query, run.row), key, value, mask, scale, dropout)
        z = _put_row(z, last, run.row)
    return (_fire_z(hooks, z) if _hooked(hooks.hook_z) else z), None


def _fire_z(
    hooks: AttentionHooks, z: Float[Tensor, "batch query head d_value"]
) -> Float[Tensor, "batch query head d_value"]:
    edited = hooks.fire(hooks.hook_z, z)
    # Only what the hook made: rows of padding may hold NaN before it.
    spoilt = (z.detach().isfinite() & ~edited.detach().isfinite()).any()
    hooks.__dict__["run"].sums.append((hooks.hook_z, torch.where(spoilt, torch.nan, 0.0)))
    return edited


def _open_rows(
    hooks: AttentionHooks,
    query: Float[Tensor, "batch head row d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_value"],
    mask: Bool[Tensor, "#batch #head row key"] | Float[Tensor, "#batch #head row key"] | None,
    scaling: float,
    dropout: float,
) -> Float[Tensor, "batch row head d_value"]:
    """softmax(q k^T scaling + mask) v of the given rows, with the hooks in between."""
    wide = torch.promote_types(query.dtype, torch.float32)
    batch, head, row, _ = query.shape
    kv_head, n_key = key.shape[1:3]
    # Query heads that share a key head lie side by side: their rows become one matrix.
    grouped = (query.to(wide) * scaling).reshape(batch, kv_head, -1, query.shape[3])
    scores = (grouped @ key.to(wide).transpose(-1, -2)).view(batch, head, row, n_key)
    hidden = None
    if mask is not None:
        # The lowest number of a narrower dtype hides a key as well.
        hidden = ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min
        scores = scores if mask.dtype == torch.bool else scores + mask
        scores = scores.masked_fill(hidden, torch.finfo(wide).min)
    masked, scores = scores, hooks.fire(hooks.hook_attn_scores, scores)
    if hidden is not None and row > 1 and scores is not masked:
        # Rows of padding see no key at all; what a hook makes of them must not end as NaN.
        blind = hidden.all(dim=-1, keepdim=True)
        scores = torch.where(blind, masked, scores) if bool(blind.any()) else scores
    pattern = hooks.fire(hooks.hook_pattern, scores.softmax(dim=-1))
    hooks.__dict__["run"].sums.append((hooks.hook_attn_scores, pattern.detach().sum()))
    if dropout:
        pattern = nn.functional.dropout(pattern, dropout)
    z = pattern.reshape(batch, kv_head, -1, n_key) @ value.to(wide)
    z = z.view(batch, head, row, value.shape[3]).transpose(1, 2)
    return z.to(value.dtype)


def _explicit_mask(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    mask: Bool[Tensor, "batch_or_1 head_or_1 query key"]
    | Float[Tensor, "batch_or_1 head_or_1 query key"]
    | None,
    is_causal: bool | None,
    last_of: Run | None,
) -> (
    Bool[Tensor, "mask_batch head_or_1 row key"]
    | Float[Tensor, "mask_batch head_or_1 row key"]
    | None
):
    """The mask that SDPA would apply, of all rows or of the last real token's row of `last_of`.

    No mask and several rows mean causal, aligned top left.
    """
    causal = bool(getattr(module, "is_causal", True)) if is_causal is None else is_causal
    n_query, n_key = query.shape[2], key.shape[2]
    if mask is not None or n_query == 1 or not causal:
        return mask if last_of is None else _take(mask, last_of.row)
    keys = torch.arange(n_key, device=query.device)
    if last_of is None:
        return (keys <= torch.arange(n_query, device=query.device)[:, None])[None, None]
    # One row alone: a square of rows and keys, even of bits, would outgrow all that is recorded.
    if last_of.row is None:
        return None if n_key == n_query else (keys < n_query)[None, None, None]
    return (keys <= last_of.row.to(query.device)[:, None])[:, None, None]


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
    z: Float[Tensor, "batch query head d_value"],
    last: Float[Tensor, "batch 1 head d_value"],
    row: Int[Tensor, " batch"] | None,
) -> Float[Tensor, "batch query head d_value"]:
    """Write the opened row back; a copy where autograd still needs SDPA's own output."""
    if z.requires_grad or last.requires_grad:
        z = z.clone()
    if row is None:
        z[:, -1:] = last
    else:
        z[torch.arange(z.shape[0], device=z.device), row.to(z.device)] = last[:, 0]
    return z


def _hooked(point: HookPoint) -> bool:
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks)


def _hook_names(point: HookPoint) -> str:
    return ", ".join(name_of(handle.user_hook) for handle in point.fwd_hooks) or "torch hook"


def name_of(hook: Any) -> str:
    """A hook's name for a message: never the whole of a tensor that it holds."""
    return getattr(hook, "__name__", None) or shorten(repr(hook), 80, placeholder=" ...")


def _refuse_unsupported(module: nn.Module, hooks: AttentionHooks, kwargs: dict[str, Any]) -> None:
    for name, what in _UNSUPPORTED.items():
        if kwargs.get(name) is not None:
            raise NotImplementedError(
                f"{type(module).__name__} uses {what}, which {hooks.hook_attn_scores.name} does not "
                "compute: expected plain softmax attention; remove the score hooks from this model."
            )
