"""Which image tokens: the m best of a row of scores (equation 4), and how widely heads look."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# No score of a key that a row can see is as low. The mean over heads of which the mask hides a key from
# one lies below it: the lowest number of float32 over the number of heads.
HIDDEN = -1e30


def is_visible(scores: Float[Tensor, "*any"]) -> Bool[Tensor, "*any"]:
    """Where pre-softmax scores are of keys that neither the mask nor an earlier hook hides.

    Hidden keys hold minus infinity, the lowest number of the dtype, or a number below `HIDDEN`.
    """
    return scores > max(HIDDEN, torch.finfo(scores.dtype).min)


@cache
def exact_ratio(alpha: float) -> tuple[int, int]:
    """Numerator and denominator of the decimal number that was written: 0.3 is 3/10."""
    return Decimal(repr(float(alpha))).as_integer_ratio()


def n_selected(alpha: float, n_image: int) -> int:
    """m = floor(alpha N_I), at least 1; alpha is taken as the decimal number that was written."""
    # `top5_percent_k` of the paper's public code:
    # https://github.com/LandHqzx/ARS-RVE/blob/8067247577c58ace5ac68ccc85806e012fbb3f60/transformers/src/transformers/models/llama/modeling_llama.py
    numerator, denominator = exact_ratio(alpha)
    return max(numerator * n_image // denominator, 1)


def top_image_tokens(
    scores: Float[Tensor, "batch *set key"],
    image: Bool[Tensor, "batch *set key"],
    m: tuple[int, ...],
) -> Bool[Tensor, "batch *set key"]:
    """Equation 4: the image tokens whose score reaches the m-th largest of each sample's image.

    Args:
        scores: pre-softmax, post-mask scores, averaged over a set of heads, float32; a key that the
            mask hides from one of the heads, as a sliding window hides older image tokens, holds a
            number below `HIDDEN` and is never selected.
        image: which keys are image tokens.
        m: tokens to select, by sample; more are selected where scores tie with the last of them.
    """
    return reach_mth_largest(scores.masked_fill(~image, -torch.inf), m)


def reach_mth_largest(
    scores: Float[Tensor, "batch *set key"], m: tuple[int, ...], floor: float | None = HIDDEN
) -> Bool[Tensor, "batch *set key"]:
    """The keys whose score reaches the m-th largest of their row, and the floor.

    Without a floor every row must have m finite scores, since all keys reach minus infinity.
    """
    m = tuple(min(n, scores.shape[-1]) for n in m)
    largest = scores.topk(max(m), dim=-1).values
    if min(m) == max(m):
        threshold = largest[..., -1:]
    else:
        rank = torch.tensor(m, device=scores.device).view(-1, *[1] * (scores.dim() - 1)) - 1
        threshold = largest.gather(-1, rank.expand(*largest.shape[:-1], 1))
    return scores >= (threshold if floor is None else threshold.clamp(min=floor))


def image_entropy(
    scores: Float[Tensor, "batch head key"], image: Bool[Tensor, "batch key"]
) -> Float[Tensor, " batch"]:
    """How widely heads look over the image: 0 on one token, 1 on all of them alike.

        p = mean over the heads of softmax(S) over the image tokens alone
        H = -sum_i p_i log p_i / log N_I

    Each head counts the same, however much or little of its attention the image gets.

    Args:
        scores: pre-softmax scores of some heads, computed with in float32.
        image: image tokens that the row can see, N_I of them; with one or none H is 0.
    """
    n_image = image.sum(dim=1)
    scores = scores.float()
    # The lowest number and not -inf, which would make NaN of samples without an image.
    p = scores.masked_fill(~image[:, None], torch.finfo(scores.dtype).min).softmax(dim=-1)
    entropy = torch.special.entr(p.mean(dim=1)).sum(dim=-1)
    return torch.where(n_image > 1, entropy / n_image.clamp(min=2).log(), 0.0)
