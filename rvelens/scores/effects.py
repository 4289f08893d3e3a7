"""Scores of effects: what a head does to the answer, by gradients and by patching.

Both are of the margin, the log-odds of yes over no at the next token (`answers.yes_margin`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from rvelens.heads.pair import ContrastivePair
from rvelens.hooks.rows import image_part, last_row, scores_of
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import can_share, prepare_shared
from rvelens.model.prompts import Images
from rvelens.model.replay import ROWS, Hooks, prefill
from rvelens.model.yes_no import yes_margin
from rvelens.scores.inputs import both_texts
from rvelens.scores.maps import by_decoder_layer

PerHead = Float[Tensor, "pair layer head"]


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


def gradient(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> PerHead:
    """Sum over the image tokens of |d margin / d score|, mean of both texts.

    The gradient is with respect to the last row's pre-softmax scores of the head, through all that
    comes behind it: how much the answer depends, to first order, on where the head looks.
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
        [image_part(last_row(one, tokens), tokens).abs().sum(dim=-1).cpu() for one in grads], dim=1
    )
    return by_decoder_layer(model, (per_text[: len(pairs)] + per_text[len(pairs) :]) / 2)


@dataclass(frozen=True, eq=False)
class Patch:
    """Puts another run's output of one head in the place of the last token's."""

    row_local: ClassVar[bool] = True

    head: int
    z: Float[Tensor, "batch d_head"] = field(repr=False)

    def __call__(
        self, z: Float[Tensor, "batch query head d_head"], hook: Any
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs, before `o_proj`, with the patched one."""
        z = z.clone()
        z[:, -1, self.head] = self.z
        return z


@dataclass(frozen=True, eq=False)
class Keep:
    """Keeps the heads' outputs of the last token."""

    row_local: ClassVar[bool] = True
    point: str
    outputs: dict[str, Float[Tensor, "batch head d_head"]] = field(repr=False)

    def __call__(self, z: Float[Tensor, "batch query head d_head"], hook: Any) -> None:
        """Store the last row."""
        self.outputs[self.point] = z[:, -1]


@torch.no_grad()
def patching(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> PerHead:
    """|change of the margin| as the head's output under the contrastive text takes its own's place.

    Activation patching of `hook_z` at the last token of the question, one head at a time; layers
    behind it run on. Heads run side by side behind one prefill where `replay.prefill` can
    (`Family.replays`), else each in a whole forward.
    """
    images = [pair.image for pair in pairs]
    points = [f"blocks.{layer}.attn.hook_z" for layer in model.attention_layers]
    seen: dict[str, Tensor] = {}
    keep = [(point, Keep(point, seen)) for point in points]
    list(_logits_under([keep], model, images, [pair.contrastive for pair in pairs], prompt))
    settings = [
        [(point, Patch(head, seen[point][:, head]))]
        for point in points
        for head in range(model.n_heads)
    ]
    texts = [pair.question for pair in pairs]
    under = _logits_under([[], *settings], model, images, texts, prompt)
    plain, *patched = (yes_margin(logits, model.processor) for logits in under)
    effects = (torch.stack(patched) - plain).abs().cpu()
    effects = rearrange(effects, "(layer head) pair -> pair layer head", layer=len(points))
    return by_decoder_layer(model, effects)


def _logits_under(
    settings: Sequence[Hooks], model: HookedLVLM, images: Images, texts: list[str], prompt: str
) -> Iterator[Float[Tensor, "batch vocab"]]:
    """Logits of the next token under each setting, which edits the last row alone."""
    if not model.family.replays or model.list_hooks():
        inputs = model.prepare(images, texts, prompt)
        for hooks in settings:
            with model.hooks(hooks):
                yield model(**inputs, logits_to_keep=1)[:, -1]
        return
    prepare = prepare_shared if can_share(model, prompt) else HookedLVLM.prepare
    prefix = prefill(model, prepare(model, images, texts, prompt))
    for start in range(0, len(settings), ROWS):
        yield from prefix.replay_each(settings[start : start + ROWS]).unbind(dim=1)
