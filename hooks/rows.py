"""The last real token's row of scores or pattern, whatever rows the model hands out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.tokens import TokenMap


def last_row(
    x: Float[Tensor, "batch head query key"], tokens: TokenMap
) -> Float[Tensor, "batch head key"]:
    """Each sample's row of its last real token, out of one row or of all of them."""
    if x.shape[2] == 1:
        return x[:, :, 0]
    batch = torch.arange(x.shape[0], device=x.device)
    return x[batch, :, _row(x, tokens)]


def with_last_row(
    x: Float[Tensor, "batch head query key"], row: Float[Tensor, "batch head key"], tokens: TokenMap
) -> Float[Tensor, "batch head query key"]:
    """A copy of `x` in which `row` stands for each sample's last real token."""
    if x.shape[2] == 1:
        return row[:, :, None]
    batch = torch.arange(x.shape[0], device=x.device)
    x = x.clone()
    x[batch, :, _row(x, tokens)] = row
    return x


def _row(x: Tensor, tokens: TokenMap) -> Tensor:
    return tokens.last.to(x.device) - (tokens.n_keys - x.shape[2])
