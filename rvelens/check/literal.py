"""Equations 4 to 6 and eager attention, literally: loops over the scores of one row.

Written from the paper's equations. Nothing here uses `rvelens.hooks` or the opened rows, which it is
compared with.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.seam.call import Call

# Scores below are of keys that the mask hides.
_HIDDEN = -1e30
# Two means this near to each other, as a share of the largest score, may change places by rounding.
_TIE = 1e-5


@dataclass(frozen=True)
class LiteralRVE:
    """The parameters of Section 3.2 for one layer.

    Attributes:
        ranking: heads of the layer, highest ARS first.
        k, alpha, beta: as in the paper.
    """

    ranking: Sequence[int]
    k: int
    alpha: float
    beta: float

    def edit(
        self, scores: Float[Tensor, "head key"], image: Sequence[int], n_image: int
    ) -> tuple[Float[Tensor, "head key"], bool]:
        """Equation 6 on the scores of a row, and whether rounding could change the masks.

        Args:
            scores: pre-softmax scores, float64.
            image: keys that are image tokens.
            n_image: image tokens of the prompt; those out of a cache's window have no key.
        """
        m = max(math.floor(Fraction(str(self.alpha)) * n_image), 1)
        tie = _TIE * max(1.0, float(scores[scores > _HIDDEN].abs().max()))
        enhance, near = _mask(scores, self.ranking[: self.k], image, m, tie)
        denoise, near_too = _mask(scores, self.ranking[-self.k :], image, m, tie)
        edited = scores.clone()
        for i in image:
            if i not in enhance or i in denoise:
                continue
            for head in range(len(scores)):
                s = float(scores[head, i])
                if s > _HIDDEN:
                    edited[head, i] = s + self.beta * abs(s)
        return edited, near or near_too


def _mask(
    scores: Float[Tensor, "head key"],
    heads: Sequence[int],
    image: Sequence[int],
    m: int,
    tie: float,
) -> tuple[set[int], bool]:
    """Equation 4: the image tokens whose mean reaches the m-th largest, and whether it is a tie."""
    columns = scores[list(heads)][:, list(image)].tolist()
    means = [sum(column) / len(heads) for column in zip(*columns, strict=True)]
    ordered = sorted((mean for mean in means if mean > _HIDDEN), reverse=True)
    if not ordered:
        return set(), False
    threshold = ordered[min(m, len(ordered)) - 1]
    mask = {i for i, mean in zip(image, means, strict=True) if mean >= threshold}
    smaller = [mean for mean in ordered if mean < threshold]
    return mask, (bool(smaller) and threshold - smaller[0] < tie) or ordered.count(threshold) > 1


def scores_of_row(call: Call, sample: int, row: int) -> Float[Tensor, "head key"]:
    """Scaled q.k of a row, mask added, in float64."""
    query = call.query[sample, :, row].double().cpu()
    group = len(query) // call.key.shape[1]
    keys = call.key[sample].double().cpu()
    scaling = call.kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    scores = torch.stack([keys[h // group] @ query[h] * scaling for h in range(len(query))])
    mask = additive_mask(call)
    if mask is None:
        return scores
    mask = mask.expand(len(call.query), len(query), -1, -1)
    return scores + mask[sample, :, row].double().cpu()


def z_of_row(
    call: Call, sample: int, scores: Float[Tensor, "head key"]
) -> Float[Tensor, "head d_value"]:
    """The values of a sample in the proportions of the softmax of a row, in float64."""
    weights = scores.softmax(dim=-1)
    values = call.value[sample].double().cpu()
    group = len(weights) // len(values)
    return torch.stack([weights[h] @ values[h // group] for h in range(len(weights))])


def additive_mask(call: Call) -> Float[Tensor, "mask_batch mask_head query key"] | None:
    """The mask as a number to add, in float32; none under SDPA means causal for several rows."""
    n_query, n_key = call.query.shape[2], call.key.shape[2]
    lowest = torch.finfo(torch.float32).min
    mask: Tensor | None = call.mask
    if mask is None:
        flag = call.kwargs.get("is_causal")
        causal = getattr(call.module, "is_causal", True) if flag is None else flag
        if call.name != "sdpa" or n_query == 1 or not causal:
            return None
        mask = torch.ones(n_query, n_key, dtype=torch.bool, device=call.query.device).tril()
        mask = mask[None, None]
    mask = mask[..., :n_key]
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, lowest)
    return mask.float().clamp(min=lowest)


def eager_function(call: Call) -> Callable[..., Any] | None:
    """The eager attention function of a module's own modeling file; None where there is none."""
    if call.name == "eager":
        return call.function
    file = sys.modules[type(call.module).__module__]
    return getattr(file, "eager_attention_forward", None)


def eager_in_float32(
    call: Call, eager: Callable[..., Any]
) -> tuple[Float[Tensor, "batch query head d_value"], Float[Tensor, "batch head query key"] | None]:
    """Eager attention of the same queries, keys and values, in float32: z and weights."""
    query, key, value = (x.float() for x in (call.query, call.key, call.value))
    kwargs = {"scaling": query.shape[-1] ** -0.5, **call.kwargs, "dropout": 0.0}
    return eager(call.module, query, key, value, additive_mask(call), *call.args, **kwargs)
