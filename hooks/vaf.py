"""Visual amplification fusion (Yin et al. 2025, "ClearSight"): text looks at the image more.

Unlike the other methods it edits many rows, every text row behind the image, so a prompt must come
in under `query_rows="all"`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import chosen_layers
from rvelens.hooks.restrict import Restricted, restrict
from rvelens.hooks.rows import MASK_ENFORCED, N_ROWS, scores_of
from rvelens.hooks.selection import is_visible
from rvelens.hooks.strengths import check_strength
from rvelens.tokens.token_map import TokenMap, tokens_of


@dataclass(frozen=True)
class VAFHook:
    """Scores of image tokens scaled up and of the system prompt scaled down, in all heads.

    Attributes:
        query_rows: the rows that this hook needs to see, for whoever sets the model up.
    """

    enhance: float
    suppress: float
    query_rows: ClassVar[str] = "all"
    in_place: ClassVar[bool] = False

    def __call__(
        self, scores: Float[Tensor, "batch head query key"], hook: Any
    ) -> Float[Tensor, "batch head query key"]:
        """Scale pre-softmax, post-mask scores; keys that a row cannot see stay hidden from it.

        Raises:
            ValueError: a prompt comes in and one row of it is shown.
        """
        tokens = tokens_of(hook)
        n_query, n_key = scores.shape[2:]
        n_rows = hook.ctx.get(N_ROWS, n_query)
        if n_query < n_rows:
            raise ValueError(
                f"{hook.name} shows one of the prompt's {n_rows} rows: expected all of them, "
                'which VAF edits; set model.query_rows = "all".'
            )
        rows = behind_image(tokens, n_query).to(scores.device)[:, None, :, None]
        if not hook.ctx.get(MASK_ENFORCED):
            rows = rows & is_visible(scores)
        image = tokens.image_keys(n_key, scores.device)[:, None, None]
        system = tokens.align(before_image(tokens).to(scores.device), n_key)[:, None, None]
        # https://github.com/ustc-hyin/ClearSight/blob/5466c945be8cbd69ecc08b09455d8ed11f37ce67/visaug/inference/AttnAdapter.py#L70-L78
        factor = torch.where(rows & image, self.enhance, 1.0)
        factor = torch.where(rows & system, self.suppress, factor)
        return scores * factor.to(scores.dtype)


def before_image(tokens: TokenMap) -> Bool[Tensor, "batch known"]:
    """The system prompt: real keys before each sample's first image token; none without an image."""
    seen = tokens.image.cumsum(dim=1)
    return tokens.real & (seen == 0) & (seen[:, -1:] > 0)


def behind_image(tokens: TokenMap, n_query: int) -> Bool[Tensor, "batch {n_query}"]:
    """Which of the newest `n_query` rows are text behind the sample's last image token."""
    end = _end_of_image(tokens)[:, None]
    if tokens.length is not None:  # a generated token
        return end >= 0
    rows = torch.arange(tokens.n_keys - n_query, tokens.n_keys, device=end.device)
    # Rows beyond the known ones were generated, so they are text.
    real = torch.nn.functional.pad(tokens.real, (0, tokens.n_keys - tokens.n_known), value=True)
    return (rows > end) & (end >= 0) & real[:, tokens.n_keys - n_query :]


def _end_of_image(tokens: TokenMap) -> Int[Tensor, " batch"]:
    positions = torch.arange(tokens.n_known, device=tokens.image.device)
    return torch.where(tokens.image, positions, -1).amax(dim=1)


@refuse_wrong_types
def vaf_hooks(
    n_layers: int,
    layers: Iterable[int] | None = None,
    enhance: float = 1.15,
    suppress: float = 0.95,
    attention_layers: Iterable[int] | None = None,
    steps: str = "all",
) -> list[tuple[str, VAFHook | Restricted]]:
    """Hooks that scale what text behind the image sees of the image and of the system prompt.

    In all heads, before softmax, for every text row behind the last image token of the prompt and
    for every decode row: S * enhance on image tokens, S * suppress on what stands before the first
    image token. A prompt must come in under `model.query_rows = "all"`; decoding needs no more than
    the default.

    Args:
        n_layers: layers of the model.
        layers: layers to edit; by default the published 9 to 14 of 32, scaled to this depth.
        enhance: factor on image tokens, at least 0 (published: 1.15).
        suppress: factor on the system prompt, at least 0 (published: 0.95).
        attention_layers: layers of a hybrid model that have attention; by default all.
        steps: new tokens at which the edit is made, as in `restrict`; all of them by default.

    Returns:
        (hook name, hook) for `model.hooks(...)`, good for any number of prompts and batches.

    Raises:
        ValueError: a factor outside its range, or a layer that the model lacks; when run, a prompt
            of which one row is shown.
    """
    for name, factor in (("enhance", enhance), ("suppress", suppress)):
        check_strength(name, factor)
    hook = VAFHook(float(enhance), float(suppress))
    chosen = chosen_layers(layers, 9, 14, n_layers, attention_layers)
    return restrict([(scores_of(layer), hook) for layer in chosen], steps=steps)
