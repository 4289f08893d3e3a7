"""The last real token's row of scores or pattern, whatever rows the model hands out."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from rvelens.tokens import TokenMap, tokens_of


def last_row(
    x: Float[Tensor, "batch head query key"], tokens: TokenMap
) -> Float[Tensor, "batch head key"]:
    """Each sample's row of its last real token, out of one row or of all of them."""
    if x.shape[2] == 1:
        return x[:, :, 0]
    batch = torch.arange(x.shape[0], device=x.device)
    return x[batch, :, _row(x, tokens)]


def with_last_row(
    x: Float[Tensor, "batch head query key"], row: Float[Tensor, "batch head key"], tokens: TokenMap
) -> Float[Tensor, "batch head query key"]:
    """A copy of `x` in which `row` stands for each sample's last real token."""
    if x.shape[2] == 1:
        return row[:, :, None]
    batch = torch.arange(x.shape[0], device=x.device)
    x = x.clone()
    x[batch, :, _row(x, tokens)] = row
    return x


class LastRowHook:
    """A hook on pre-softmax, post-mask scores that edits each last real token's row alone.

    A subclass says in `edited_row` what takes the row's place; `blocks.{layer}.attn.hook_attn_scores`
    is where it goes. Leave keys that the mask hides as they are: they hold the lowest finite number,
    of which S + |S| makes 0, a score like any other, so that the row would see them. `visible_image`
    leaves them out.
    """

    def __call__(
        self, scores: Float[Tensor, "batch head query key"], hook: Any
    ) -> Float[Tensor, "batch head query key"]:
        """The scores with the edited row in its place."""
        tokens = tokens_of(hook)
        return with_last_row(scores, self.edited_row(last_row(scores, tokens), tokens), tokens)

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """What takes the row's place: the last real token's scores, of every head."""
        raise NotImplementedError


def scores_of(layer: int) -> str:
    """The hook point of a layer's scores."""
    return f"blocks.{layer}.attn.hook_attn_scores"


def image_part(
    x: Shaped[Tensor, "batch set key"], tokens: TokenMap
) -> Shaped[Tensor, "batch set image"]:
    """The image tokens' columns, in their order; samples with fewer of them end in zeros."""
    index, valid = (i.to(x.device) for i in tokens.image_index())
    # A sliding-window layer holds the newest keys only; older image tokens get zeros.
    index = index - max(tokens.n_keys - x.shape[-1], 0)
    seen = valid & (index >= 0)
    index = index.clamp(min=0)[:, None].expand(-1, x.shape[1], -1)
    return x.gather(-1, index) * seen[:, None]


def visible(row: Float[Tensor, "batch head key"]) -> Bool[Tensor, "batch key"]:
    """Keys that the mask leaves to a row of post-mask scores; a mask is the same for every head."""
    return row[:, 0] > torch.finfo(row.dtype).min


def visible_image(
    row: Float[Tensor, "batch head key"], tokens: TokenMap
) -> Bool[Tensor, "batch key"]:
    """Image tokens among a row's own keys that the mask, a sliding window's too, leaves to it.

    What the mask hides holds the lowest finite number; any edit that moves it unmasks it.

    Args:
        row: pre-softmax, post-mask scores of one row a sample, as `LastRowHook.edited_row` gets them.
        tokens: where the image is.
    """
    return tokens.image_keys(row.shape[-1], row.device) & visible(row)


def _row(x: Tensor, tokens: TokenMap) -> Tensor:
    return tokens.last.to(x.device) - (tokens.n_keys - x.shape[2])
