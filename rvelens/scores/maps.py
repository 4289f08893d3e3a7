"""Scores of attention maps A and A_hat: the last token's attention to the image for both texts.

Each function takes two maps [pair head image] and returns [pair head]. The maps are attention after the
softmax to image tokens only, not renormalised, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.heads.pair import ContrastivePair
from rvelens.hooks.record import ars_caching_hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.scores.inputs import both_texts

Maps = Float[Tensor, "pair head image"]
_PerHead = Float[Tensor, "pair head"]


def ars(
    a: Float[Tensor, "pair head image"], a_hat: Float[Tensor, "pair head image"]
) -> Float[Tensor, "pair head"]:
    """Equation 3: ||A - A_hat|| / ((||A|| + ||A_hat||) / 2) over the image tokens.

    A and A_hat are attention after the softmax from the last token to the image tokens, not
    renormalised, in float32. 0/0 gives 0. The score is from 0 to 2. Two disjoint maps of equal norm
    score 1.41.
    """
    a, a_hat = a.float(), a_hat.float()
    # The ratio does not change with scale, but the squares of very small weights would vanish.
    top = torch.maximum(a.amax(dim=-1), a_hat.amax(dim=-1))[..., None]
    top = torch.where(top > 0, top, 1.0)
    a, a_hat = a / top, a_hat / top
    mean_norm = (a.norm(dim=-1) + a_hat.norm(dim=-1)) / 2
    # The authors' code adds 1e-8 to the mean norm instead, after attention in 16 bits:
    # https://github.com/LandHqzx/ARS-RVE/blob/8067247577c58ace5ac68ccc85806e012fbb3f60/attentionheads_statistics_analyzer.py
    return torch.where(mean_norm > 0, (a - a_hat).norm(dim=-1) / mean_norm, 0.0)


def ars_as_published(a: Maps, a_hat: Maps) -> _PerHead:
    """Equation 3 as the authors' code computes it, for comparison with their rankings.

    Both maps are rounded to float16, and 1e-8 is added to the mean norm. The smallest steps of float16
    are 6e-8. So rounding changes the score of a head that hardly looks at the image.
    """
    a, a_hat = a.half().float(), a_hat.half().float()
    return (a - a_hat).norm(dim=-1) / ((a.norm(dim=-1) + a_hat.norm(dim=-1)) / 2 + 1e-8)


def difference(a: Maps, a_hat: Maps) -> _PerHead:
    """||A - A_hat||, the numerator of equation 3; small for heads that hardly look at the image."""
    return (a - a_hat).norm(dim=-1)


def renormalised(a: Maps, a_hat: Maps) -> _PerHead:
    """Equation 3 on maps that each sum to 1: only the change of place, not of amount.

    If a head gives no attention to the image for a text, its map is zeros.
    """
    return ars(_shares(a), _shares(a_hat))


def mass_weighted(a: Maps, a_hat: Maps) -> _PerHead:
    """Equation 3 times the attention on the image, the mean of both texts."""
    return ars(a, a_hat) * (a.sum(dim=-1) + a_hat.sum(dim=-1)) / 2


def _shares(a: Maps) -> Maps:
    mass = a.sum(dim=-1, keepdim=True)
    return torch.where(mass > 0, a / mass, 0.0)


def by_decoder_layer(
    model: HookedLVLM, values: Float[Tensor, "pair attention_layer *rest"]
) -> Float[Tensor, "pair layer *rest"]:
    """Values of layers with attention, expanded to all layers; 0 in the other layers."""
    every = values.new_zeros(len(values), model.n_layers, *values.shape[2:])
    every[:, list(model.attention_layers)] = values
    return every


def of_maps(
    formula: Callable[[Maps, Maps], _PerHead],
) -> Callable[[HookedLVLM, Sequence[ContrastivePair], str], Float[Tensor, "pair layer head"]]:
    """Turns a score of maps into a score of pairs, with one forward for both texts of all pairs."""

    @torch.no_grad()
    def score(
        model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str
    ) -> Float[Tensor, "pair layer head"]:
        attention: dict[int, Tensor] = {}
        inputs = both_texts(model, pairs, prompt)
        with model.hooks(ars_caching_hooks(model.attention_layers, attention)):
            model(**inputs, logits_to_keep=1)
        maps = (attention[layer].chunk(2) for layer in model.attention_layers)
        scores = torch.stack([formula(a, a_hat).cpu() for a, a_hat in maps], dim=1)
        return by_decoder_layer(model, scores)

    return score
