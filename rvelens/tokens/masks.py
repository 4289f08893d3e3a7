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
    visible = ~hidden_by(mask[..., n_past:n_keys])
    return visible.flatten(1, 2).any(dim=1)  # a key that no row sees is padding


def padding_seen_by_itself(
    mask: Any, n_past: int, n_query: int
) -> Bool[Tensor, "batch key"] | None:
    """New tokens that are padding though they see themselves, so that no row is empty.

    Masks by row and key are often made so. A token that sees and is seen by itself alone is padding,
    and so are two or more at the end that no other row sees.

    Args:
        mask, n_past, n_query: as in `real_tokens`.

    Returns:
        none in samples that would have no other token; None for other kinds of masks.
    """
    square = isinstance(mask, Tensor) and mask.dim() == 4 and mask.shape[-2] == n_query
    if not square or n_query == 1 or mask.shape[-1] < n_past + n_query:
        return None
    visible = ~hidden_by(mask[..., : n_past + n_query]).all(dim=1)
    new = visible[..., n_past:]
    others = new & ~torch.eye(n_query, dtype=torch.bool, device=new.device)
    alone = new.any(dim=1) & ~others.any(dim=1)
    isolated = alone & (visible.sum(dim=2) == 1)
    at_end = alone.flip(1).long().cumprod(dim=1).flip(1).bool() & ~isolated
    padding = isolated | at_end & (at_end.sum(dim=1, keepdim=True) > 1)
    return padding & (new.any(dim=1) & ~padding).any(dim=1, keepdim=True)
