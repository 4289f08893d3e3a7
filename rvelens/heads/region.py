"""How well a head's attention finds the true region, and whether a ranking agrees."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from rvelens.stats import auc_of_sides


def region_auc(
    attention: Float[Tensor, "question layer head image"], region: Bool[Tensor, "question image"]
) -> Float[Tensor, "question layer head"]:
    """Probability that a token inside the region gets more attention than a token outside.

    0.5 is chance; ties count half. NaN for a question whose region is empty or the whole image.
    """
    return torch.stack(
        [
            auc_of_sides(shown[..., inside], shown[..., ~inside])
            for shown, inside in zip(attention, region, strict=True)
        ]
    )


def enrichment(
    attention: Float[Tensor, "question layer head image"], region: Bool[Tensor, "question image"]
) -> Float[Tensor, "question layer head"]:
    """Share of the image attention inside the region, divided by the region's share of the image.

    1 is chance. NaN if a head gives no attention to the image.
    """
    inside = region[:, None, None].to(attention.dtype)
    mass = (attention * inside).sum(-1) / attention.sum(-1)
    return mass / inside.mean(-1)


def rank_correlations(
    scores: Float[np.ndarray, "layer head"], values: Float[np.ndarray, "layer head"]
) -> Float[np.ndarray, " layer"]:
    """Spearman's correlation of two measures of heads, within each layer.

    0 if one measure is the same for all heads of the layer.
    """
    a, b = (rankdata(x, axis=1) for x in (scores, values))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(norm > 0, norm, 1)
