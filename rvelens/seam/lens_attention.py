"""`blocks.{layer}.attn`: all hook points of a layer's attention, and its weights."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.compiler import is_compiling

from rvelens.seam.attention import AttentionHooks
from rvelens.seam.forward import Run
from rvelens.seam.linear import weight_of
from rvelens.seam.points import rows_of
from rvelens.seam.stream import Stream
from rvelens.seam.taps import Output, Result


class LensAttention(AttentionHooks):
    """The hook points of one layer's attention, those of `AttentionHooks` among them.

    - `hook_q` [batch query head d_head], `hook_k` and `hook_v` [batch query kv_head d_head]: as
      projected, before any norm of heads and before rotary positions.
    - `hook_result` [batch query head d_model]: what each head adds to the residual stream.

    The weights are views or copies of the model's own. They are not parameters of this module.
    """

    def __init__(self, run: Run, layer: int, stream: Stream) -> None:
        super().__init__(run, layer)
        self._stream = stream
        for row in rows_of("attention"):
            owner, _, name = row.name.rpartition(".")
            if owner == "attn" and not hasattr(self, name):
                setattr(self, name, stream.point(f"{layer}.{row.name}"))

    @property
    def in_use(self) -> bool:
        """Whether any hook in the attention function's place is on, or something watches its calls."""
        # A guard: torch's hooks on modules have none in a compiled graph, and every graph comes here.
        if is_compiling() and self._stream.on:
            return self.on
        return self.on or self.watch is not None

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:  # noqa: N802
        """Weights of the queries; ValueError where they are not one projection's, as `hook_q`."""
        return self._projection("q")

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:  # noqa: N802
        """Weights of the keys, of each key head once; ValueError as in `W_Q`."""
        return self._projection("k")

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:  # noqa: N802
        """Weights of the values, of each key head once; ValueError as in `W_Q`."""
        return self._projection("v")

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:  # noqa: N802
        """Weights of the output projection; ValueError where it does not get `hook_z` as it is."""
        source = self._result
        return weight_of(source.module).T.unflatten(0, (source.n_heads, -1))

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:  # noqa: N802
        """What is added to the queries; zeros where nothing is."""
        return self._bias("q")

    @property
    def b_K(self) -> Float[Tensor, "kv_head d_head"]:  # noqa: N802
        """What is added to the keys; zeros where nothing is."""
        return self._bias("k")

    @property
    def b_V(self) -> Float[Tensor, "kv_head d_head"]:  # noqa: N802
        """What is added to the values; zeros where nothing is."""
        return self._bias("v")

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:  # noqa: N802
        """What the output projection adds; zeros where it adds nothing."""
        return bias_of(self._result.module)

    def _source(self, name: str) -> Any:
        self._stream.renew()
        return self._stream.find(f"{self.layer}.attn.hook_{name}")

    @property
    def _result(self) -> Result:
        return self._source("result")

    def _projection(self, part: str) -> Float[Tensor, "head d_model d_head"]:
        source: Output = self._source(part)
        assert source.view is not None
        return source.view(weight_of(source.module).T).transpose(0, 1)

    def _bias(self, part: str) -> Float[Tensor, "head d_head"]:
        source: Output = self._source(part)
        assert source.view is not None
        return source.view(bias_of(source.module)[None])[0]


def bias_of(module: Any) -> Float[Tensor, " d_out"]:
    """The bias of a linear module, zeros if it has none."""
    bias = module.bias
    weight = weight_of(module)
    return torch.zeros_like(weight[:, 0]) if bias is None else bias
