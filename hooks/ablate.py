"""Head masking: what the model does without some of its heads (paper, Section 4.2, Figure 9a)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.tokens.token_map import tokens_of


@dataclass(frozen=True)
class HeadMask:
    """Zeroes heads of one layer at every position, through `hook_z`."""

    in_place: ClassVar[bool] = False
    layer: int
    heads: tuple[int, ...]

    def __call__(
        self, z: Float[Tensor, "batch query head d_head"], hook: Any
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs, before `o_proj`, with those of `heads` set to zero."""
        z = z.clone()
        z[:, :, list(self.heads)] = 0
        return z

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError where the model has no such head."""
        wrong = [head for head in self.heads if not 0 <= head < n_heads]
        if wrong:
            raise ValueError(
                f"layer {self.layer}: heads {wrong} of {n_heads} are masked: expected heads from 0 "
                f"to {n_heads - 1}; choose heads that the model has."
            )


@dataclass(frozen=True)
class LastRowHeadMask(HeadMask):
    """Zeroes heads of one layer at each last real token only, through `hook_z`."""

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False

    def __call__(
        self, z: Float[Tensor, "batch query head d_head"], hook: Any
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs, with those of `heads` set to zero in the last row."""
        z = z.clone()
        if z.shape[1] == 1:
            z[:, :, list(self.heads)] = 0
            return z
        tokens = tokens_of(hook)
        row = tokens.last.to(z.device) - (tokens.n_keys - z.shape[1])
        for head in self.heads:
            z[torch.arange(len(z), device=z.device), row, head] = 0
        return z


@refuse_wrong_types
def head_mask_hooks(
    heads: Mapping[int, Iterable[int]], rows: str = "all"
) -> list[tuple[str, HeadMask]]:
    """Hooks that zero heads at every position, as zeroing their columns of `o_proj` would.

    Args:
        heads: the heads to mask, by layer: `{14: [3, 7], 15: [0]}`.
        rows: "last" zeroes them at the last real token of each forward only, which a replay can do.

    Returns:
        (hook name, hook) for `model.hooks(...)`; each checks its heads against the model there.

    Raises:
        ValueError: a negative layer, when called; a head or layer that the model lacks, when added.
    """
    for layer in heads:
        if layer < 0:
            raise ValueError(
                f"layer {layer} is negative: expected 0 or more; count layers from the first."
            )
    if rows not in ("all", "last"):
        raise ValueError(f"rows={rows!r}: expected 'all' or 'last'; pass one of them.")
    kind = LastRowHeadMask if rows == "last" else HeadMask
    return [
        (f"blocks.{layer}.attn.hook_z", kind(layer, tuple(sorted(set(some)))))
        for layer, some in sorted(heads.items())
    ]
