"""Equations 3 to 6 of the paper, literally: slow loops over the eager score matrix.

Written from the paper's text and independent of `rvelens.hooks`. Instead of following a cache, the
reference runs the whole sequence at once: a row that was the last one at some step of a generation
is edited as equations 4 to 6 say, the rows of the prompt before its last token are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "rve_reference"
# Scores below are masked, as keys outside a sliding window are: the row has no such image token.
HIDDEN = -1e30


@dataclass
class RVE:
    """The parameters of Section 3.2 and what the prompt looks like.

    Attributes:
        ranking: heads of each layer, highest ARS first.
        layers: the layers that are enhanced.
        image: positions of the image tokens, by sample.
        last: position of the last token of the prompt, by sample.
    """

    ranking: Sequence[Sequence[int]]
    layers: Sequence[int]
    image: Sequence[Sequence[int]]
    last: Sequence[int]
    k: int = 5
    alpha: float = 0.05
    beta: float = 1.0
    scope: str = "all"
    denoise: bool = True


def target_mask(rve: RVE, layer: int, s: list[list[float]]) -> list[int]:
    """Equations 4 and 5 for one sample and layer; s[h][i]: score of head h, image token i."""
    n_image = len(s[0])
    ranking = rve.ranking[layer]
    sens, non = ranking[: rve.k], ranking[len(ranking) - rve.k :]
    m = max(math.floor(rve.alpha * n_image), 1)
    masks = []
    for heads in (sens, non):
        mean = [sum(s[h][i] for h in heads) / len(heads) for i in range(n_image)]
        tau = sorted(mean, reverse=True)[m - 1]
        masks.append([1 if mean[i] >= tau else 0 for i in range(n_image)])
    enh, den = masks
    if not rve.denoise:
        return enh
    return [enh[i] * (1 - den[i]) for i in range(n_image)]


def edit_row(rve: RVE, layer: int, row: Tensor, image: Sequence[int]) -> None:
    """Equation 6, in place, on one row [head, key] of the score matrix of one sample."""
    scores = row.tolist()
    n_heads = len(scores)
    target = target_mask(rve, layer, [[scores[h][i] for i in image] for h in range(n_heads)])
    heads = range(n_heads) if rve.scope == "all" else rve.ranking[layer][: n_heads // 2]
    for h in heads:
        for n, i in enumerate(image):
            if scores[h][i] > HIDDEN:
                scores[h][i] = scores[h][i] + rve.beta * (abs(scores[h][i]) * target[n])
    row.copy_(torch.tensor(scores))


# Of the latest forward, by layer: post-softmax, every row.
PATTERNS: dict[int, Tensor] = {}
_active: RVE | None = None


@contextmanager
def active(rve: RVE | None) -> Iterator[None]:
    """Let models under the attention implementation `NAME` follow `rve`."""
    global _active
    _active = rve
    try:
        yield
    finally:
        _active = None


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Eager attention over the full score matrix, with the rows edited that were last."""
    n_heads, n_rows = query.shape[1:3]
    group = n_heads // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query.float() @ key.float().transpose(-1, -2) * scaling
    assert attention_mask is not None
    scores = scores + attention_mask[:, :, :, : key.shape[2]]
    rve, layer = _active, module.layer_idx
    if rve is not None and layer in rve.layers:
        for b in range(query.shape[0]):
            for r in range(rve.last[b], n_rows):
                edit_row(rve, layer, scores[b, :, r], rve.image[b])
    PATTERNS[layer] = scores.softmax(dim=-1)
    z = PATTERNS[layer] @ value.float()
    return z.to(value.dtype).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)


def ars(a: Sequence[float], a_hat: Sequence[float]) -> float:
    """Equation 3 for one head of one pair; 0/0 is 0."""
    norm = math.sqrt(sum(x * x for x in a))
    norm_hat = math.sqrt(sum(x * x for x in a_hat))
    distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, a_hat, strict=True)))
    half_sum = 0.5 * (norm + norm_hat)
    return distance / half_sum if half_sum > 0 else 0.0


def ars_of_attentions(
    attentions: Sequence[Tensor], image: Sequence[Sequence[int]], last: Sequence[int]
) -> Tensor:
    """Equation 3 averaged over pairs, [layer, head], from `output_attentions=True`.

    The batch holds the original prompts first and their contrastive partners after them.
    """
    n_pairs = len(last) // 2
    result = torch.zeros(len(attentions), attentions[0].shape[1])
    for layer, weights in enumerate(attentions):
        for head in range(weights.shape[1]):
            rows = weights[:, head].tolist()
            scores = []
            for p in range(n_pairs):
                q = p + n_pairs
                a = [rows[p][last[p]][i] for i in image[p]]
                a_hat = [rows[q][last[q]][i] for i in image[q]]
                scores.append(ars(a, a_hat))
            result[layer, head] = sum(scores) / n_pairs
    return result
