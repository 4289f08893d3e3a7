"""Views of attention: its mean, its gradients, relevancy and rollout.

A is the attention of a layer after the softmax. E_h is the mean over its heads. G is the gradient of
the target's logit with respect to A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.heads.layers import format_layers
from rvelens.hooks.record import ars_caching_hooks
from rvelens.hooks.rows import image_part, last_row
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.query_rows import query_rows
from rvelens.tokens.token_map import TokenMap
from rvelens.views.base import ViewInput

ByLayer = dict[int, Float[Tensor, "sample head query key"]]


@torch.no_grad()
def attention(view_input: ViewInput) -> Float[Tensor, "sample image"]:
    """E over layers and heads of the last row of A."""
    recorded: dict[int, Float[Tensor, "sample head image"]] = {}
    with view_input.model.hooks(ars_caching_hooks(view_input.model.attention_layers, recorded)):
        view_input.model(**view_input.inputs, logits_to_keep=1)
    return torch.stack([weights.mean(dim=1).cpu() for weights in recorded.values()]).mean(dim=0)


def gradient_attention(view_input: ViewInput) -> Float[Tensor, "sample image"]:
    """E over layers and heads of A * max(G, 0), in the last row: Grad-SAM."""
    with query_rows(view_input.model, "last"):
        patterns, gradients, tokens = _with_gradients(view_input)
    maps = [
        image_part(last_row(a * gradients[layer].clamp(min=0), tokens), tokens).mean(dim=1).cpu()
        for layer, a in patterns.items()
    ]
    return torch.stack(maps).mean(dim=0)


def relevancy(view_input: ViewInput) -> Float[Tensor, "sample image"]:
    """The last row of R. It starts at R = 1, and each layer sets R <- R + E_h[max(G * A, 0)] R.

    Equations 5 and 6 of Chefer et al., for self-attention only.

    Raises:
        ValueError: layers without attention, for which the rule is not defined.
    """
    _check_every_layer(view_input.model, "relevancy")
    with query_rows(view_input.model, "all"):
        patterns, gradients, tokens = _with_gradients(view_input)
    steps = ((gradients[layer] * a).clamp(min=0).mean(dim=1) for layer, a in patterns.items())
    return _passed_on(steps, tokens, lambda r, step: r + step @ r)


@torch.no_grad()
def rollout(view_input: ViewInput) -> Float[Tensor, "sample image"]:
    """The last row of the product over layers of (E_h[A] + 1) / 2.

    Equation 1 of Abnar and Zuidema, Section 3.

    Raises:
        ValueError: layers without attention, for which the rule is not defined.
    """
    model = view_input.model
    _check_every_layer(model, "rollout")
    patterns: ByLayer = {}
    hooks = [(_pattern(layer), _Keep(layer, patterns)) for layer in model.attention_layers]
    with query_rows(model, "all"), model.hooks(hooks):
        model(**view_input.inputs, logits_to_keep=1)
    steps = (a.mean(dim=1) for a in patterns.values())
    return _passed_on(steps, _map(model), lambda r, step: (step @ r + r) / 2)


def _passed_on(
    steps: Iterator[Float[Tensor, "sample query key"]],
    tokens: TokenMap,
    rule: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "sample image"]:
    """The image tokens' columns in the last real row of R, after the rule for each layer."""
    r = None
    for step in steps:
        if r is None:
            r = torch.eye(step.shape[-1], device=step.device).expand_as(step)
        r = rule(r, step.to(r.device))
    assert r is not None  # models have layers
    return image_part(last_row(r[:, None], tokens), tokens)[:, 0].cpu()


@dataclass(frozen=True, eq=False)
class _Keep:
    """Keeps a layer's pattern."""

    layer: int
    patterns: ByLayer = field(repr=False)
    in_place = False

    def __call__(self, pattern: Float[Tensor, "sample head query key"], hook: Any) -> None:
        self.patterns[self.layer] = pattern.detach().float()


@dataclass(frozen=True, eq=False)
class _Probe:
    """Keeps a layer's pattern, and adds zeros to it, with respect to which gradients are taken."""

    layer: int
    patterns: ByLayer = field(repr=False)
    zeros: ByLayer = field(repr=False)

    def __call__(
        self, pattern: Float[Tensor, "sample head query key"], hook: Any
    ) -> Float[Tensor, "sample head query key"]:
        self.patterns[self.layer] = pattern.detach().float()
        self.zeros[self.layer] = torch.zeros_like(pattern, requires_grad=True)
        return pattern + self.zeros[self.layer]


def _with_gradients(view_input: ViewInput) -> tuple[ByLayer, ByLayer, TokenMap]:
    """A and G by layer, of the rows that the model shows, and the token map."""
    model, patterns, zeros = view_input.model, ByLayer(), ByLayer()
    layers = model.attention_layers
    probes = [(_pattern(layer), _Probe(layer, patterns, zeros)) for layer in layers]
    with torch.enable_grad(), model.hooks(probes):
        logits = model(**view_input.inputs, logits_to_keep=1)[:, -1]
        target = view_input.target_of(logits).sum()
        derivatives = torch.autograd.grad(target, [zeros[layer] for layer in layers])
    gradients = {
        layer: gradient.float() for layer, gradient in zip(layers, derivatives, strict=True)
    }
    return {layer: patterns[layer] for layer in layers}, gradients, _map(model)


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


def _map(model: HookedLVLM) -> TokenMap:
    tokens = model.tokens
    assert tokens is not None  # a forward has just been
    return tokens


def _check_every_layer(model: HookedLVLM, view: str) -> None:
    if len(model.attention_layers) < model.n_layers:
        raise ValueError(
            f"{view} of {model.name}, in which only layers {format_layers(model.attention_layers)} of "
            f"{model.n_layers} have attention: expected attention in every layer, since the rule "
            "says nothing of others; take attention or gradient-attention."
        )
