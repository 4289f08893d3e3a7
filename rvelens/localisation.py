"""How well a head's attention finds the ground-truth region, and whether a ranking knows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
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


def rank_correlations(
    scores: Float[np.ndarray, "layer head"], values: Float[np.ndarray, "layer head"]
) -> Float[np.ndarray, " layer"]:
    """Spearman's correlation of two measures of the heads within each layer.

    0 where either is the same for all heads of the layer.
    """
    a, b = (rankdata(x, axis=1) for x in (scores, values))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(norm > 0, norm, 1)


def _average_ranks(x: Float[Tensor, "*any image"]) -> Float[Tensor, "*any image"]:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks."""
    ordered = x.sort(dim=-1).values.contiguous()
    low = torch.searchsorted(ordered, x.contiguous(), side="left")
    high = torch.searchsorted(ordered, x.contiguous(), side="right")
    return (low + 1 + high).to(x.dtype) / 2
