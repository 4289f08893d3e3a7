"""Relation-aware visual enhancement (paper, Section 3.2, equations 4 to 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, ClassVar, Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import check_attention, parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.hooks.restrict import restrict
from rvelens.hooks.rows import LastRowHook, scores_of, sees_whole_image, visible_image
from rvelens.hooks.selection import (
    HIDDEN,
    exact_ratio,
    image_entropy,
    is_visible,
    reach_mth_largest,
)
from rvelens.hooks.strengths import check_strength
from rvelens.tokens.outlasting import outlasting
from rvelens.tokens.token_map import TokenMap

Scope = Literal["all", "sensitive"]


@dataclass(frozen=True, eq=False)
class RVEHook(LastRowHook):
    """RVE on the attention scores of one layer: last row, at prefill and at every decode step."""

    row_local: ClassVar[bool] = True
    layer: int
    heads: Int[Tensor, "2 k"] = field(repr=False)
    edited: Bool[Tensor, " head"] | None = field(repr=False)
    n_layers: int | None
    n_heads: int
    alpha: float
    beta: float
    denoise: bool
    max_entropy: float = 1.0
    _ratio: tuple[int, int] = field(init=False, repr=False)
    _placed: dict[torch.device, tuple[Tensor, Tensor | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ratio", exact_ratio(self.alpha))

    def n_selected(self, n_image: int) -> int:
        """m, by `selection.n_selected`, in whole numbers that a compiled graph can follow."""
        numerator, denominator = self._ratio
        return max(numerator * n_image // denominator, 1)

    def edited_at(
        self, hook: Any, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """Equation 6 on the last token's row, without a floor where the row sees the whole image."""
        floor = None if sees_whole_image(hook, tokens, row.shape[-1]) else HIDDEN
        return self._edited(row, tokens, floor)

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """Equation 6 on the last token's row."""
        return self._edited(row, tokens, HIDDEN)

    def _edited(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap, floor: float | None
    ) -> Float[Tensor, "batch head key"]:
        m = tuple(self.n_selected(n) for n in tokens.n_image)
        target = _target([self], row, tokens, m, floor)[:, None]
        _, edited = self._on(row.device)
        if edited is not None:
            target = target & edited[:, None]
        return torch.addcmul(row, row.abs(), target, value=self.beta)

    @property
    def alike(self) -> tuple[Any, ...]:
        """What hooks have in common that can run `side_by_side`: all but strengths and shares."""
        edited = None if self.edited is None else tuple(self.edited.tolist())
        return self.layer, tuple(self.heads.flatten().tolist()), edited, self.denoise

    @staticmethod
    def side_by_side(
        hooks: Sequence[RVEHook], rows: Float[Tensor, "batch head setting key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head setting key"]:
        """Equation 6 on a row for each of several hooks that are `alike`."""
        x = rearrange(rows, "batch head setting key -> (batch setting) head key")
        every = tokens.expand(x.shape[0])
        m = tuple(h.n_selected(n) for n, h in zip(every.n_image, cycle(hooks), strict=False))
        target = _target(hooks, x, every, m, HIDDEN)[:, None]
        _, edited = hooks[0]._on(x.device)
        if edited is not None:
            target = target & edited[:, None]
        beta = _each([h.beta for h in hooks], x)
        if isinstance(beta, Tensor):
            target, beta = target * beta, 1.0
        x = torch.addcmul(x, x.abs(), target, value=beta)
        return rearrange(
            x, "(batch setting) head key -> batch head setting key", setting=len(hooks)
        )

    def target(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Bool[Tensor, "batch key"]:
        """Equations 4 and 5: the keys to enhance, from the last token's pre-softmax scores.

        None in samples whose sensitive heads look about more than `max_entropy` allows.
        """
        m = tuple(self.n_selected(n) for n in tokens.n_image)
        return _target([self], row, tokens, m, HIDDEN)

    def sure(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Bool[Tensor, " batch"]:
        """Samples whose sensitive heads know where to look: `image_entropy` <= `max_entropy`."""
        return _sure([self], row, tokens)

    def masks(
        self,
        row: Float[Tensor, "batch head key"],
        tokens: TokenMap,
        m: tuple[int, ...] | None = None,
        floor: float | None = HIDDEN,
    ) -> Bool[Tensor, "batch 2 key"]:
        """Equation 4: M_enh and M_den, over all keys (false outside the image).

        Args:
            row: the last token's scores.
            tokens: where the image is.
            m: tokens to select, by sample; by default those of `alpha`.
            floor: None where the row sees at least m image tokens of each sample.
        """
        m = m or tuple(self.n_selected(n) for n in tokens.n_image)
        bias = tokens.image_bias(row.shape[-1], row.device)[:, None].expand(-1, 2, -1)
        shares, _ = self._on(row.device)
        scores = row.float()
        if floor is not None:  # a hidden key may hold minus infinity, which times 0 is NaN
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~is_visible(row), lowest)
        # Both means over heads as one product, with minus infinity outside of the image.
        means = torch.baddbmm(bias, shares.expand(len(row), -1, -1), scores)
        return reach_mth_largest(means, m, floor)

    def _on(
        self, device: torch.device
    ) -> tuple[Float[Tensor, "2 head"], Bool[Tensor, " head"] | None]:
        """What each head counts in the two means, and the heads that are edited, on a device."""
        if device not in self._placed:
            with outlasting():
                shares = torch.zeros(2, self.n_heads).scatter_(
                    1, self.heads, 1 / self.heads.shape[1]
                )
                edited = None if self.edited is None else self.edited.to(device)
                self._placed[device] = (shares.to(device), edited)
        return self._placed[device]

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError where the profile is of a model of another shape."""
        if n_heads != self.n_heads or self.n_layers not in (None, n_layers):
            raise ValueError(
                f"hooks of a profile of {self.n_layers or n_layers} layers x {self.n_heads} heads for "
                f"a model of {n_layers} x {n_heads}: expected a profile of this model; make one with "
                "score_heads."
            )


def _target(
    hooks: Sequence[RVEHook],
    x: Float[Tensor, "sample head key"],
    tokens: TokenMap,
    m: tuple[int, ...],
    floor: float | None,
) -> Bool[Tensor, "sample key"]:
    enhancing, denoising = hooks[0].masks(x, tokens, m, floor).unbind(dim=1)
    # Of two masks, the one above the other: enhancing and not denoising.
    target = enhancing > denoising if hooks[0].denoise else enhancing
    gated = any(hook.max_entropy < 1 for hook in hooks)
    return target & _sure(hooks, x, tokens)[:, None] if gated else target


def _sure(
    hooks: Sequence[RVEHook], x: Float[Tensor, "sample head key"], tokens: TokenMap
) -> Bool[Tensor, " sample"]:
    sensitive = x[:, hooks[0].heads[0].to(x.device)]
    entropy = image_entropy(sensitive, visible_image(sensitive, tokens))
    limit = _each([hook.max_entropy for hook in hooks], x)
    return entropy <= (limit[:, 0, 0] if isinstance(limit, Tensor) else limit)


def _each(values: list[float], x: Float[Tensor, "sample head key"]) -> float | Tensor:
    """One number where all settings agree, else one for each sample, settings taking turns."""
    if len(set(values)) == 1:
        return values[0]
    return x.new_tensor(values).repeat(x.shape[0] // len(values))[:, None, None]


@refuse_wrong_types
def rve_hooks(
    profile: ARSProfile,
    layers: Iterable[int] | int | str,
    k: int = 5,
    alpha: float = 0.05,
    beta: float = 1.0,
    scope: str = "all",
    denoise: bool = True,
    max_entropy: float = 1.0,
    steps: str = "all",
) -> list[tuple[str, Any]]:
    """Hooks that raise the scores of image tokens that sensitive heads look at and others do not.

    In each layer, from the pre-softmax scores S of the last token over its N_I image tokens:

        M_enh = [mean of S over the k most sensitive heads >= its m-th largest value]     (4)
        M_den = [mean of S over the k least sensitive heads >= its m-th largest value]    (4)
        M     = M_enh * (1 - M_den)                                                        (5)
        S     = S + beta |S| * M                                                           (6)

    with m = floor(alpha N_I), at least 1. Masks belong to the layer and the input; each sample of a
    batch has its own. Ranking of heads is within the layer.

    With `max_entropy` below 1 a layer enhances only where its sensitive heads know where to look,
    by the entropy of their attention over the image, for each sample and step by itself:

        p = mean over the k most sensitive heads of softmax(S) over the image tokens alone
        M = 0 where -sum_i p_i log p_i / log N_I > max_entropy

    N_I counts the image tokens that the layer can see. The paper leaves layers that follow the input
    to future work and names attention entropy; this rule is not the paper's.

    Args:
        profile: sensitivity of every head, from `score_heads` or `ARSProfile.published`.
        layers: layers to enhance, as numbers or as text for `rvelens.heads.layers.parse_layers`
            ("14-31", "preset", "auto"); the paper says "middle", its public code 14 to 31 of 32.
        k: sensitive and insensitive heads that make the masks (paper: 5), at most half of the heads.
        alpha: share of image tokens to select, in (0, 1] (paper: 0.05; InstructBLIP 0.5).
        beta: strength, at least 0 (paper: 1.0).
        scope: "all" edits every head of the layer, "sensitive" the top half by sensitivity (Table 5).
        denoise: subtract M_den; without it M = M_enh.
        max_entropy: in (0, 1], as a share of the entropy of even attention; 1.0 enhances every input
            in every layer given, and computes no entropy.
        steps: new tokens at which scores are raised, as in `restrict`; the paper raises them at all.

    Returns:
        (hook name, hook) for `model.hooks(...)`, good for any number of prompts and batches.

    Raises:
        ValueError: an argument outside its range, or a layer that the profile lacks.
    """
    if isinstance(layers, str):
        layers = parse_layers(layers, profile, profile.n_layers)
    elif not isinstance(layers, Iterable):
        layers = [layers]
    layers = sorted(set(layers))
    _check_arguments(profile, layers, k, alpha, beta, scope, max_entropy)
    edited = None
    hooks = []
    for layer in layers:
        with outlasting():
            heads = torch.tensor([profile.top(layer, k), profile.bottom(layer, k)])
            if scope == "sensitive":
                edited = torch.zeros(profile.n_heads, dtype=torch.bool)
                edited[profile.top(layer, profile.n_heads // 2)] = True
        shape = (profile.n_layers, profile.n_heads)
        strength = float(alpha), float(beta)
        hook = RVEHook(layer, heads, edited, *shape, *strength, denoise, float(max_entropy))
        hooks.append((scores_of(layer), hook))
    return restrict(hooks, steps=steps)


@refuse_wrong_types
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
                f"layer {layer}: heads {list(some)} of {n_heads}: expected at least one, each from "
                f"0 to {n_heads - 1}; correct the heads."
            )
    strength = float(alpha), float(beta)
    with outlasting():
        return [
            (
                scores_of(layer),
                RVEHook(
                    layer, torch.tensor([list(some)] * 2), None, None, n_heads, *strength, False
                ),
            )
            for layer, some in sorted(heads.items())
        ]


def _check_strength(alpha: float, beta: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError(
            f"alpha={alpha}: expected a share of the image tokens in (0, 1]; the paper uses 0.05."
        )
    check_strength("beta", beta)


def _check_arguments(
    profile: ARSProfile,
    layers: list[int],
    k: int,
    alpha: float,
    beta: float,
    scope: str,
    max_entropy: float,
) -> None:
    outside = [layer for layer in layers if not 0 <= layer < profile.n_layers]
    if outside or not layers:
        raise ValueError(
            f"layers {outside or layers} for a profile of {profile.n_layers} layers: expected "
            f"layers from 0 to {profile.n_layers - 1}; choose at least one of them."
        )
    check_attention(layers, profile.attention_layers)
    if not 1 <= k <= profile.n_heads // 2:
        raise ValueError(
            f"k={k} for {profile.n_heads} heads a layer: expected 1 to {profile.n_heads // 2}, so that "
            "sensitive and insensitive heads are different ones; choose another k."
        )
    _check_strength(alpha, beta)
    if scope not in get_args(Scope):
        raise ValueError(f"scope={scope!r}: expected 'all' or 'sensitive'; pass one of them.")
    if not 0 < max_entropy <= 1:
        raise ValueError(
            f"max_entropy={max_entropy}: expected a share of the entropy of uniform attention in "
            "(0, 1]; leave it at 1 to enhance every input."
        )
