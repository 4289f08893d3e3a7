"""Attention steering without selection: every image token raised, from the last row.

PAI (Liu et al. 2024, "Paying More Attention to Image") raises each head's scores by their own size;
"Devils in Middle Layers" (Jiang et al. 2025) by their mean size over the heads of the layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import chosen_layers
from rvelens.hooks.restrict import Restricted, restrict
from rvelens.hooks.rows import LastRowHook, scores_of
from rvelens.hooks.selection import HIDDEN
from rvelens.hooks.strengths import check_strength
from rvelens.tokens.token_map import TokenMap


@dataclass(frozen=True)
class PAIHook(LastRowHook):
    """S + alpha |S| on the image tokens of the last row."""

    row_local: ClassVar[bool] = True
    alpha: float

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """The last row with its image tokens raised."""
        image = tokens.image_keys(row.shape[-1], row.device)[:, None]
        # https://github.com/LALBJ/PAI/blob/9bbd8bd57a0b0923f996197e4bd3e02cc10b8d58/attention.py#L91-L94
        return torch.addcmul(row, row.abs(), image, value=self.alpha)


@dataclass(frozen=True)
class DevilsHook(LastRowHook):
    """S + alpha * (mean over heads of |S|) on the image tokens of the last row."""

    row_local: ClassVar[bool] = True
    alpha: float

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """The last row with its image tokens raised."""
        image = tokens.image_keys(row.shape[-1], row.device)[:, None]
        # A key that the mask hides has no size; its lowest number would overflow the mean.
        size = row.abs().masked_fill(row < HIDDEN, 0).mean(dim=1, keepdim=True)
        # https://github.com/ZhangqiJiang07/middle_layers_indicating_hallucinations/blob/a0622a9dfcd10428f5bcdbf992105fff49c2ec85/modify_attention.py#L84-L87
        return torch.addcmul(row, size, image, value=self.alpha)


@refuse_wrong_types
def pai_hooks(
    n_layers: int,
    layers: Iterable[int] | None = None,
    alpha: float = 0.2,
    attention_layers: Iterable[int] | None = None,
    first_token: bool = True,
    steps: str = "all",
) -> list[tuple[str, PAIHook | Restricted]]:
    """Hooks that raise the last token's scores of all image tokens, each head by its own size.

    S = S + alpha |S| on image tokens, pre-softmax, at prefill and at every decode step. Without
    image tokens nothing is edited, so these hooks may stay on during a branch of text alone
    (`rvelens.interventions.pai`).

    Args:
        n_layers: layers of the model.
        layers: layers to edit; by default the published 2 to 31 of 32, scaled to this depth.
        alpha: strength, at least 0 (the authors' script: 0.2).
        attention_layers: layers of a hybrid model that have attention; by default all.
        first_token: edit the row that predicts the first token too. The authors' script does not
            where guidance is on (https://github.com/LALBJ/PAI: `llama_modify` starts with use_cfg set,
            which `CFGLogits` clears behind the first token).
        steps: new tokens at which the edit is made, as in `restrict`; all of them by default.

    Returns:
        (hook name, hook) for `model.hooks(...)`, good for any number of prompts and batches.

    Raises:
        ValueError: a strength outside its range, or a layer that the model lacks.
    """
    check_strength("alpha", alpha)
    hook = PAIHook(float(alpha))
    chosen = chosen_layers(layers, 2, 31, n_layers, attention_layers)
    hooks = [(scores_of(layer), hook) for layer in chosen]
    return restrict(hooks if first_token else restrict(hooks, steps="decode"), steps=steps)


@refuse_wrong_types
def devils_hooks(
    n_layers: int,
    layers: Iterable[int] | None = None,
    alpha: float = 0.5,
    attention_layers: Iterable[int] | None = None,
    steps: str = "all",
) -> list[tuple[str, DevilsHook | Restricted]]:
    """Hooks that raise the last token's scores of all image tokens, every head by the same size.

    S = S + alpha * (mean over the layer's query heads of |S|) on image tokens, pre-softmax, at
    prefill and at every decode step.

    Args:
        n_layers: layers of the model.
        layers: layers to edit; by default the published 5 to 18 of 32, scaled to this depth.
        alpha: strength, at least 0 (published: 0.5).
        attention_layers: layers of a hybrid model that have attention; by default all.
        steps: new tokens at which the edit is made, as in `restrict`; all of them by default.

    Returns:
        (hook name, hook) for `model.hooks(...)`, good for any number of prompts and batches.

    Raises:
        ValueError: a strength outside its range, or a layer that the model lacks.
    """
    check_strength("alpha", alpha)
    hook = DevilsHook(float(alpha))
    chosen = chosen_layers(layers, 5, 18, n_layers, attention_layers)
    return restrict([(scores_of(layer), hook) for layer in chosen], steps=steps)
