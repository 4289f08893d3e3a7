"""The tokens that a forward adds, as far as they are known before the decoder starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rvelens.tokens.masks import padding_seen_by_itself, real_tokens
from rvelens.tokens.token_map import TokenMap


@dataclass(eq=False)
class NewTokens:
    """What a model was given, and what it marked as visual, before its decoder starts.

    Attributes:
        input_ids: of the new tokens; None where the model was given embeddings.
        attention_mask: of the new tokens, or of those in the cache too; false is padding.
        visual: the visual tokens among the new ones, as the model itself marked them.
        visual_ids: token ids that stand for visual tokens, for models that do not mark them; None
            for those that do.
        has_visual: whether the model was given images or videos in any form; None if that is unknown.
    """

    input_ids: Int[Tensor, "batch key"] | None = None
    attention_mask: Any = None
    visual: Bool[Tensor, "batch key"] | None = None
    visual_ids: tuple[int, ...] | None = None
    has_visual: bool | None = None

    def roles(self, batch: int, n_past: int, n_query: int) -> TokenMap | None:
        """The map of the new tokens; None if nothing tells their roles."""
        visual = self._visual(n_past, n_query)
        if visual is None:
            return None
        real = self._real(n_past, n_query)
        real = torch.ones_like(visual) if real is None else real.to(visual.device)
        n_rows = max(len(real), len(visual))  # beams: one of the two was repeated already
        if not (n_rows % len(real) == n_rows % len(visual) == batch % n_rows == 0):
            return None
        real = real.repeat_interleave(n_rows // len(real), dim=0)
        visual = visual.repeat_interleave(n_rows // len(visual), dim=0)
        return TokenMap.from_masks(visual & real, real).expand(batch)

    def last_rows(self, batch: int, n_past: int, n_query: int) -> Int[Tensor, " batch"] | None:
        """Row of the last new token of each sample that is no padding; None if nothing tells.

        It is -1 where all new tokens are padding.
        """
        real = self._real(n_past, n_query)
        if real is None or batch % len(real):
            return None
        rows = torch.arange(real.shape[1], device=real.device)
        last = torch.where(real, rows, -1).amax(dim=1)
        return last.repeat_interleave(batch // len(real))

    def _real(self, n_past: int, n_query: int) -> Bool[Tensor, "batch key"] | None:
        """Which of the new tokens are no padding; None if the mask does not tell."""
        real = real_tokens(self.attention_mask, n_past, n_query)
        padding = padding_seen_by_itself(self.attention_mask, n_past, n_query)
        return real if real is None or padding is None else real & ~padding

    def generated_before(
        self, n_known: int, n_past: int, n_query: int
    ) -> Bool[Tensor, "batch between"] | None:
        """Which keys between a prompt and the new tokens are no padding; None if nothing tells."""
        mask = self.attention_mask
        whole = isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] == n_past + n_query
        return mask[:, n_known:n_past].bool() if whole else None

    def _visual(self, n_past: int, n_query: int) -> Bool[Tensor, "batch key"] | None:
        """Which of the new tokens are visual; None if nothing tells."""
        visual, ids = self.visual, self.input_ids
        if visual is None and ids is not None:
            visual = torch.isin(ids, ids.new_tensor(self.visual_ids or ()))
        if visual is None or visual.shape[1] not in (n_query, n_past + n_query):
            return None
        # Some models mark the whole prompt, of which a cache holds the beginning.
        return visual[:, -n_query:]
