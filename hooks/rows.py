"""The last real token's row of scores or pattern, whatever rows the model hands out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from rvelens.hooks.selection import is_visible
from rvelens.tokens.token_map import TokenMap, tokens_of

# In the ctx of a hook point: whether all that is hidden is hidden again after the hook.
MASK_ENFORCED = "mask_enforced"
# In the ctx of a hook point: whether any key may be hidden. None is in most decode steps.
MASKED = "masked"
# In the ctx of a hook point: rows that the layer computes, of which the hook may see only the last.
N_ROWS = "n_rows"


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
    is where it goes. Keys that the mask or an earlier hook hides stay hidden, whatever `edited_row`
    makes of their scores.
    """

    in_place: ClassVar[bool] = False

    def __call__(
        self, scores: Float[Tensor, "batch head query key"], hook: Any
    ) -> Float[Tensor, "batch head query key"]:
        """The scores with the edited row in its place."""
        tokens = tokens_of(hook)
        row = last_row(scores, tokens)
        if hook.ctx.get(MASK_ENFORCED):
            return with_last_row(scores, self.edited_at(hook, row, tokens), tokens)
        before = row.clone()  # a subclass may edit its row in place
        edited = self.edited_at(hook, row, tokens)
        return with_last_row(scores, torch.where(is_visible(before), edited, before), tokens)

    def edited_at(
        self, hook: Any, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """`edited_row`, for hooks that have a shorter way where the hook point tells more."""
        return self.edited_row(row, tokens)

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
    behind = max(tokens.n_keys - x.shape[-1], 0)
    if not behind and len(set(tokens.n_image)) == 1:  # every entry is an image token that is seen
        return x.gather(-1, index[:, None].expand(-1, x.shape[1], -1))
    # A sliding-window layer holds the newest keys only; older image tokens get zeros.
    index = index - behind
    seen = valid & (index >= 0)
    index = index.clamp(min=0)[:, None].expand(-1, x.shape[1], -1)
    return x.gather(-1, index) * seen[:, None]


def visible_image(
    row: Float[Tensor, "batch head key"], tokens: TokenMap
) -> Bool[Tensor, "batch key"]:
    """Image tokens that the mask, a sliding window's too, leaves to every head of a row.

    Args:
        row: pre-softmax, post-mask scores of one row a sample, as `LastRowHook.edited_row` gets them.
        tokens: where the image is.
    """
    seen = is_visible(row).all(dim=1)
    return tokens.image_keys(row.shape[-1], row.device) & seen


def region_keys(
    region: Bool[Tensor, "batch image"], tokens: TokenMap, n_keys: int, device: torch.device
) -> Bool[Tensor, "batch {n_keys}"]:
    """The keys of a region of the image, aligned with a layer's own key axis.

    Args:
        region: which image tokens, by sample.
        tokens: where the image is.
        n_keys: length of the key axis.
        device: where the keys are wanted.

    Raises:
        ValueError: a region that does not fit the batch.
    """
    index, valid = (x.to(device) for x in tokens.image_index())
    if region.shape != index.shape:
        raise ValueError(
            f"a region of shape {tuple(region.shape)} for a batch with image tokens "
            f"{tuple(index.shape)}: expected one row per sample and one entry per image token; "
            "pass a mask of that shape."
        )
    # Added up, not written: filler entries all point at key 0, which may be an image token too.
    chosen = (region.to(device) & valid).int()
    counts = torch.zeros_like(tokens.image, dtype=torch.int, device=device)
    return tokens.align(counts.scatter_add_(1, index, chosen) > 0, n_keys)


def sees_whole_image(hook: Any, tokens: TokenMap, n_keys: int) -> bool:
    """Whether the row at a hook point is sure to see every image token of every sample.

    Args:
        hook: the hook point.
        tokens: where the image is.
        n_keys: length of the layer's key axis; shorter than the sequence in a sliding window.
    """
    unmasked = not hook.ctx.get(MASKED, True) and tokens.length is None
    return unmasked and n_keys >= tokens.n_seen and min(tokens.n_image, default=0) > 0


def _row(x: Tensor, tokens: TokenMap) -> Tensor:
    return tokens.last.to(x.device) - (tokens.n_keys - x.shape[2])
