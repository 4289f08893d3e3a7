"""One call of an attention function, and the arithmetic of its opened rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.compiler import is_compiling

from rvelens.seam.arguments import Keywords
from rvelens.tokens.masks import hidden_by

# Arguments that change the scores in ways which the opened rows do not compute.
_UNSUPPORTED = {
    "softcap": "soft-capped scores",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
}


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
    kwargs: Keywords

    def original(self) -> tuple[Float[Tensor, "batch query head d_value"], Tensor | None]:
        """What the model computes by itself: every row of z, and the weights in eager mode."""
        return self.function(
            self.module, self.query, self.key, self.value, self.mask, *self.args, **self.kwargs
        )

    def refuse_inexact(self, point: str | None) -> None:
        """Raise NotImplementedError where the opened rows would not be what the model computes."""
        reason = next(
            (f"uses {_UNSUPPORTED[n]}" for n in _UNSUPPORTED if self._has_argument(n)), None
        )
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
        if self._has_argument("cache") or str(self.name).startswith("paged|"):
            raise NotImplementedError(
                f"{point} has hooks, and a paged cache packs the rows of several prompts into one: "
                "expected a forward with one row for each prompt; use generate, or remove the "
                "hooks before generate_batch."
            )

    def _has_argument(self, name: str) -> bool:
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
        has_dtype = hasattr(torch.ops.aten.bmm, "dtype") and not is_compiling()
        return self.query.is_cuda and narrow and plain and has_dtype and not recorded

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
        flag = self.kwargs.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if flag is None else flag
        return self.name == "sdpa" and bool(causal)


def code_of(function: Any) -> Any:
    """What tells an attention function from another: its code, where it is made anew at each call."""
    return getattr(function, "__code__", function)


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
