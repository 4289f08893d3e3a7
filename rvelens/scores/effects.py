"""Scores of a head's effect on the answer, by gradients and by patching.

Both use the margin, the log-odds of yes over no at the next token (`yes_no.yes_margin`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from rvelens.heads.pair import ContrastivePair
from rvelens.hooks.patch import HeadPatch, LastRowRecorder
from rvelens.hooks.rows import image_part, last_row, scores_of
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.last_row import logits_under
from rvelens.model.yes_no import yes_margin
from rvelens.scores.inputs import both_texts
from rvelens.scores.maps import by_decoder_layer

_PerHead = Float[Tensor, "pair layer head"]


@dataclass(frozen=True)
class _Probe:
    """Adds zeros to a layer's scores, so that gradients can be taken with respect to them."""

    layer: int
    zeros: dict[int, Float[Tensor, "batch head query key"]] = field(repr=False)

    def __call__(
        self, scores: Float[Tensor, "batch head query key"], hook: Any
    ) -> Float[Tensor, "batch head query key"]:
        """The same scores, with a leaf of the graph in them."""
        self.zeros[self.layer] = torch.zeros_like(scores, requires_grad=True)
        return scores + self.zeros[self.layer]


def gradient(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> _PerHead:
    """Sum over the image tokens of |d margin / d score|, as the mean of both texts.

    The gradient is with respect to the head's scores before the softmax in the last row, through all
    later layers. It measures, to first order, how much the answer depends on where the head looks.
    """
    zeros: dict[int, Tensor] = {}
    probes = [(scores_of(layer), _Probe(layer, zeros)) for layer in model.attention_layers]
    inputs = both_texts(model, pairs, prompt)
    with torch.enable_grad(), model.hooks(probes):
        logits = model(**inputs, logits_to_keep=1)[:, -1]
        margin = yes_margin(logits, model.processor).sum()
        grads = torch.autograd.grad(margin, [zeros[layer] for layer in model.attention_layers])
    tokens = model.tokens
    assert tokens is not None  # a forward has just been
    per_text = torch.stack(
        [image_part(last_row(grad, tokens), tokens).abs().sum(dim=-1).cpu() for grad in grads],
        dim=1,
    )
    return by_decoder_layer(model, (per_text[: len(pairs)] + per_text[len(pairs) :]) / 2)


@torch.no_grad()
def patching(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> _PerHead:
    """|change of the margin| when the head's output is replaced by that of the contrastive text.

    Activation patching of `hook_z` at the last token of the question, one head at a time. Later layers
    run with the patch, see `rvelens.model.last_row`.
    """
    images = [pair.image for pair in pairs]
    points = [f"blocks.{layer}.attn.hook_z" for layer in model.attention_layers]
    recorded: dict[str, Tensor] = {}
    keep = [(point, LastRowRecorder(point, recorded)) for point in points]
    list(logits_under(model, images, [pair.contrastive for pair in pairs], [keep], prompt))
    settings = [
        [(point, HeadPatch((head,), recorded[point][:, [head]]))]
        for point in points
        for head in range(model.n_heads)
    ]
    texts = [pair.question for pair in pairs]
    under = logits_under(model, images, texts, [[], *settings], prompt)
    plain, *patched = (yes_margin(logits, model.processor) for logits in under)
    effects = (torch.stack(patched) - plain).abs().cpu()
    effects = rearrange(effects, "(layer head) pair -> pair layer head", layer=len(points))
    return by_decoder_layer(model, effects)
