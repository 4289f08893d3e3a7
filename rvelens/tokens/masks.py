"""Attention masks of transformers: what they hide, and which tokens they call padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

# An additive mask of at most this hides a key. Models write -10000 (-9984 in bfloat16), -1e9 or the
# lowest number of a dtype; position biases, which hide nothing, stay far above.
HIDES = -9000.0


def hidden_by(
    mask: Bool[Tensor, "*batch query key"] | Float[Tensor, "*batch query key"],
) -> Bool[Tensor, "*batch query key"]:
    """The keys that a mask hides from a row, which get no weight after softmax.

    Args:
        mask: true where a row may look, or a number that is added to its score.
    """
    return ~mask if mask.dtype == torch.bool else mask <= HIDES


def real_tokens(mask: Any, n_past: int, n_query: int) -> Bool[Tensor, "batch key"] | None:
    """Which of the new tokens are no padding, by any mask of transformers; None if it does not tell.

    Args:
        mask: by key [batch key], by row and key [batch head query key] (see `hidden_by`), or several
            of the latter by kind of layer.
        n_past: keys before the new tokens.
        n_query: new tokens.
    """
    n_keys = n_past + n_query
    if isinstance(mask, Mapping):
        kinds = [m for m in mask.values() if isinstance(m, Tensor) and m.shape[-1] >= n_keys]
        mask = mask.get("full_attention", kinds[0] if kinds else None)
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2:
        if mask.shape[1] == n_query:
            return mask.bool()
        # A mask that is too short means padding behind it, to transformers as well.
        return pad(mask.bool(), (0, max(n_keys - mask.shape[1], 0)))[:, n_past:n_keys]
    if mask.dim() != 4 or mask.shape[-1] < n_keys:
        return None
    seen = ~hidden_by(mask[..., n_past:n_keys])
    return seen.flatten(1, 2).any(dim=1)  # a key that no row sees is padding
