"""Relation-aware visual enhancement (paper, Section 3.2, equations 4 to 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rvelens.hooks.rows import LastRowHook, scores_of
from rvelens.layers import parse_layers
from rvelens.tokens import TokenMap

if TYPE_CHECKING:
    from rvelens.ars import ARSProfile

Scope = Literal["all", "sensitive"]


def n_selected(alpha: float, n_image: int) -> int:
    """m = floor(alpha N_I), at least 1; alpha is taken as the decimal number that was written."""
    return max(int(Decimal(repr(float(alpha))) * n_image), 1)


def top_image_tokens(
    scores: Float[Tensor, "batch *set key"],
    image: Bool[Tensor, "batch *set key"],
    m: tuple[int, ...],
) -> Bool[Tensor, "batch *set key"]:
    """Equation 4: the image tokens whose score reaches the m-th largest of each sample's image.

    Args:
        scores: pre-softmax, post-mask scores, averaged over a set of heads, float32; a key that the
            mask hides, as a sliding window hides older image tokens, holds the lowest number and is
            never selected.
        image: which keys are image tokens.
        m: tokens to select, by sample; more are selected where scores tie with the last of them.
    """
    m = tuple(min(n, scores.shape[-1]) for n in m)
    scores = scores.masked_fill(~image, -torch.inf)
    largest = scores.topk(max(m), dim=-1).values
    if min(m) == max(m):
        threshold = largest[..., -1:]
    else:
        rank = torch.tensor(m, device=scores.device).view(-1, *[1] * (scores.dim() - 1)) - 1
        threshold = largest.gather(-1, rank.expand(*largest.shape[:-1], 1))
    return (scores >= threshold) & (scores > torch.finfo(scores.dtype).min)


@dataclass(frozen=True, eq=False)
class RVEHook(LastRowHook):
    """RVE on the attention scores of one layer: last row, at prefill and at every decode step."""

    layer: int
    heads: Int[Tensor, "2 k"] = field(repr=False)
    edited: Bool[Tensor, " head"] | None = field(repr=False)
    n_layers: int | None
    n_heads: int
    alpha: float
    beta: float
    denoise: bool
    _placed: dict[torch.device, tuple[Tensor, Tensor | None]] = field(
        default_factory=dict, repr=False
    )

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """Equation 6 on the last token's row."""
        target = self.target(row, tokens)[:, None]
        _, edited = self._on(row.device)
        if edited is not None:
            target = target & edited[:, None]
        return torch.where(target, row + self.beta * row.abs(), row)

    def target(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Bool[Tensor, "batch key"]:
        """Equations 4 and 5: the keys to enhance, from the last token's pre-softmax scores."""
        enhancing, denoising = self.masks(row, tokens).unbind(dim=1)
        return enhancing & ~denoising if self.denoise else enhancing

    def masks(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Bool[Tensor, "batch 2 key"]:
        """Equation 4: M_enh and M_den, over all keys (false outside the image)."""
        image = tokens.image_keys(row.shape[-1], row.device)
        heads, _ = self._on(row.device)
        means = row[:, heads].float().mean(dim=2)
        m = tuple(n_selected(self.alpha, n) for n in tokens.n_image)
        return top_image_tokens(means, image[:, None].expand_as(means), m)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        if device not in self._placed:
            edited = None if self.edited is None else self.edited.to(device)
            self._placed[device] = (self.heads.to(device), edited)
        return self._placed[device]

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError where the profile is of a model of another shape."""
        if n_heads != self.n_heads or self.n_layers not in (None, n_layers):
            raise ValueError(
                f"hooks of a profile of {self.n_layers or n_layers} layers x {self.n_heads} heads for "
                f"a model of {n_layers} x {n_heads}: expected a profile of this model; make one with "
                "score_heads."
            )


def rve_hooks(
    profile: ARSProfile,
    layers: Iterable[int] | int | str,
    k: int = 5,
    alpha: float = 0.05,
    beta: float = 1.0,
    scope: str = "all",
    denoise: bool = True,
) -> list[tuple[str, RVEHook]]:
    """Hooks that raise the scores of image tokens that sensitive heads look at and others do not.

    In each layer, from the pre-softmax scores S of the last token over its N_I image tokens:

        M_enh = [mean of S over the k most sensitive heads >= its m-th largest value]     (4)
        M_den = [mean of S over the k least sensitive heads >= its m-th largest value]    (4)
        M     = M_enh * (1 - M_den)                                                        (5)
        S     = S + beta |S| * M                                                           (6)

    with m = floor(alpha N_I), at least 1. Masks belong to the layer and the input; each sample of a
    batch has its own. Ranking of heads is within the layer.

    Args:
        profile: sensitivity of every head, from `score_heads` or `ARSProfile.published`.
        layers: layers to enhance, as numbers or as text for `rvelens.layers.parse_layers` ("14-31",
            "preset", "auto"); the paper says "middle", its public code 14 to 31 of 32.
        k: sensitive and insensitive heads that make the masks (paper: 5), at most half of the heads.
        alpha: share of image tokens to select, in (0, 1] (paper: 0.05; InstructBLIP 0.5).
        beta: strength, at least 0 (paper: 1.0).
        scope: "all" edits every head of the layer, "sensitive" the top half by sensitivity (Table 5).
        denoise: subtract M_den; without it M = M_enh.

    Returns:
        (hook name, hook) for `model.hooks(...)`, good for any number of prompts and batches.

    Raises:
        ValueError: an argument outside its range, or a layer that the profile lacks.
    """
    if isinstance(layers, str):
        layers = parse_layers(layers, profile, profile.n_layers)
    elif isinstance(layers, int):
        layers = [layers]
    layers = sorted(set(layers))
    _check_arguments(profile, layers, k, alpha, beta, scope)
    edited = None
    hooks = []
    for layer in layers:
        heads = torch.tensor([profile.top(layer, k), profile.bottom(layer, k)])
        if scope == "sensitive":
            edited = torch.zeros(profile.n_heads, dtype=torch.bool)
            edited[profile.top(layer, profile.n_heads // 2)] = True
        shape = (profile.n_layers, profile.n_heads)
        hook = RVEHook(layer, heads, edited, *shape, float(alpha), float(beta), denoise)
        hooks.append((scores_of(layer), hook))
    return hooks


def mask_hooks(
    heads: Mapping[int, Sequence[int]], n_heads: int, alpha: float = 0.05, beta: float = 1.0
) -> list[tuple[str, RVEHook]]:
    """Equation 6 with M from the mean scores of given heads: no ranking, no denoising mask.

    The controls for RVE: all heads, random heads, or the insensitive ones in the sensitive ones'
    place. What these gain as well is not owed to the ranking.

    Args:
        heads: heads that make the mask, by layer; every head of the layer is edited.
        n_heads: heads a layer of the model.
        alpha, beta: as in `rve_hooks`.

    Raises:
        ValueError: alpha or beta outside its range, or a layer without heads or with others than 0
            to `n_heads` - 1.
    """
    _check_strength(alpha, beta)
    for layer, some in heads.items():
        if not some or not all(0 <= head < n_heads for head in some):
            raise ValueError(
                f"layer {layer}: heads {list(some)} of {n_heads}: expected at least one, each from 0 "
                f"to {n_heads - 1}."
            )
    return [
        (
            scores_of(layer),
            RVEHook(
                layer,
                torch.tensor([list(some)] * 2),
                None,
                None,
                n_heads,
                float(alpha),
                float(beta),
                False,
            ),
        )
        for layer, some in sorted(heads.items())
    ]


def _check_strength(alpha: float, beta: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a share of the image tokens in (0, 1].")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta={beta}: expected a finite strength of at least 0.")


def _check_arguments(
    profile: ARSProfile, layers: list[int], k: int, alpha: float, beta: float, scope: str
) -> None:
    outside = [layer for layer in layers if not 0 <= layer < profile.n_layers]
    if outside or not layers:
        raise ValueError(
            f"layers {outside or layers} for a profile of {profile.n_layers} layers: expected layers "
            f"from 0 to {profile.n_layers - 1}; name at least one of them."
        )
    if not 1 <= k <= profile.n_heads // 2:
        raise ValueError(
            f"k={k} for {profile.n_heads} heads a layer: expected 1 to {profile.n_heads // 2}, so that "
            "sensitive and insensitive heads are different ones; choose a smaller k."
        )
    _check_strength(alpha, beta)
    if scope not in get_args(Scope):
        raise ValueError(f"scope={scope!r}: expected 'all' or 'sensitive'.")
