"""The logit lens on image tokens: what each would predict if the model ended after a layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.hooks.rows import image_part
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.views.base import ViewInput

_ROWS = 256  # Image tokens whose logits are held at a time.


@torch.no_grad()
def lens(view_input: ViewInput) -> Float[Tensor, "sample image"]:
    """The largest probability of the target over layers, at each image token.

    The probability after a layer is softmax(W_U norm(x) + b_U), with the output x of the layer and the
    model's own final norm. Jiang et al. take the maximum over layers.

    Raises:
        NotImplementedError: logits that are scaled or capped after the unembedding.
    """
    return by_layer(view_input).amax(dim=0)


@torch.no_grad()
def by_layer(view_input: ViewInput) -> Float[Tensor, "layer sample image"]:
    """The probability of the target at each image token, by layer.

    Raises:
        NotImplementedError: logits that are scaled or capped after the unembedding.
    """
    model, streams = view_input.model, dict[int, Tensor]()
    unembed = model.unembed  # refuses before the forward
    hooks = [
        (f"blocks.{layer}.hook_resid_post", partial(_keep, streams, layer))
        for layer in range(model.n_layers)
    ]
    with model.hooks(hooks):
        logits = model(**view_input.inputs, logits_to_keep=1)[:, -1]
    targets = logits.argmax(dim=-1) if view_input.targets is None else view_input.targets
    tokens = model.tokens
    assert tokens is not None  # a forward has just been
    probabilities = torch.zeros(model.n_layers, len(targets), max(tokens.n_image))
    for layer, stream in streams.items():
        images = image_part(stream.transpose(1, 2), tokens).transpose(1, 2)
        for sample, target in enumerate(targets.tolist()):
            rows = images[sample, : tokens.n_image[sample]].split(_ROWS)
            shares = [_probability(model, unembed, piece, target) for piece in rows]
            probabilities[layer, sample, : tokens.n_image[sample]] = torch.cat(shares).cpu()
    return probabilities


def _keep(
    streams: dict[int, Tensor], layer: int, x: Float[Tensor, "sample query d_model"], hook: Any
) -> None:
    """A hook that keeps the output of a layer."""
    streams[layer] = x


def _probability(
    model: HookedLVLM, unembed: nn.Module, x: Float[Tensor, "image d_model"], target: int
) -> Float[Tensor, " image"]:
    """The probability of a token behind each vector of the residual stream."""
    weight = next(unembed.parameters())
    normed = model.ln_final(x[None].to(weight.device))[0]
    return unembed(normed.to(weight.dtype)).float().softmax(dim=-1)[:, target]
