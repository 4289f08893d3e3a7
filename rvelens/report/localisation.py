"""How well a head's attention finds the ground-truth region."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def region_auc(
    attention: Float[Tensor, "question layer head image"], region: Bool[Tensor, "question image"]
) -> Float[Tensor, "question layer head"]:
    """Probability that a token inside the region gets more attention than one outside.

    0.5 is chance; ties count half. NaN for a question whose region is empty or the whole image.
    """
    inside = region[:, None, None].to(attention.dtype)
    n_in, n_out = inside.sum(-1), (1 - inside).sum(-1)
    ranks = _average_ranks(attention)
    rank_sum = (ranks * inside).sum(-1)
    return (rank_sum - n_in * (n_in + 1) / 2) / (n_in * n_out)


def enrichment(
    attention: Float[Tensor, "question layer head image"], region: Bool[Tensor, "question image"]
) -> Float[Tensor, "question layer head"]:
    """Share of the image attention inside the region, over the region's share of the image.

    1 is chance. NaN where a head gives the image nothing.
    """
    inside = region[:, None, None].to(attention.dtype)
    mass = (attention * inside).sum(-1) / attention.sum(-1)
    return mass / inside.mean(-1)


def _average_ranks(x: Float[Tensor, "*any image"]) -> Float[Tensor, "*any image"]:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks."""
    ordered = x.sort(dim=-1).values.contiguous()
    low = torch.searchsorted(ordered, x.contiguous(), side="left")
    high = torch.searchsorted(ordered, x.contiguous(), side="right")
    return (low + 1 + high).to(x.dtype) / 2
