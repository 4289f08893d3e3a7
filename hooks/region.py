"""Steering by hand: raise or lower the scores of image tokens that the caller names.

With the ground-truth region this is the oracle: what steering gains when the place is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.rows import LastRowHook, region_keys, scores_of
from rvelens.hooks.strengths import check_strength
from rvelens.tokens.token_map import TokenMap


@dataclass(frozen=True, eq=False)
class RegionHook(LastRowHook):
    """Equation 6 with a given mask in place of M: S + beta |S| on a region of the image."""

    row_local: ClassVar[bool] = True
    region: Bool[Tensor, "batch image"] = field(repr=False)
    beta: float

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """The last token's row with the region raised."""
        target = region_keys(self.region, tokens, row.shape[-1], row.device)[:, None]
        return torch.addcmul(row, row.abs(), target, value=self.beta)


@refuse_wrong_types
def region_hooks(
    region: Bool[Tensor, "batch image"] | Bool[np.ndarray, "batch image"],
    layers: Iterable[int],
    beta: float = 1.0,
) -> list[tuple[str, RegionHook]]:
    """Hooks that raise the scores of a given region of the image, for every head, last row.

    Args:
        region: which image tokens to enhance, for each sample of the batch that will run.
        layers: layers to edit.
        beta: strength, as in RVE.

    Returns:
        (hook name, hook) for `model.hooks(...)`; good for batches with these samples only.

    Raises:
        ValueError: a negative beta; when run, a region that does not fit the batch.
    """
    check_strength("beta", beta)
    hook = RegionHook(torch.as_tensor(region), float(beta))
    return [(scores_of(layer), hook) for layer in layers]


@dataclass(frozen=True, eq=False)
class DilutionHook(LastRowHook):
    """An injected fault: the last token's scores of image tokens scaled and shifted."""

    row_local: ClassVar[bool] = True
    scale: float
    shift: float

    def edited_row(
        self, row: Float[Tensor, "batch head key"], tokens: TokenMap
    ) -> Float[Tensor, "batch head key"]:
        """The last token's row with its image tokens scaled and shifted."""
        image = tokens.image_keys(row.shape[-1], row.device)[:, None]
        return torch.where(image, row * self.scale + self.shift, row)


@refuse_wrong_types
def dilution_hooks(
    layers: Iterable[int], scale: float = 1.0, shift: float = 0.0
) -> list[tuple[str, DilutionHook]]:
    """Hooks that disturb the last token's attention to the image, to test what mends it.

    A negative shift takes attention away; a scale below 1 flattens it, and takes away only where
    scores are positive. A method that mends this damage has shown that it mends this damage, not
    that it helps the model as it is.

    Args:
        layers: layers to damage.
        scale: factor on the image tokens' scores.
        shift: added to them after scaling.

    Returns:
        (hook name, hook) for `model.hooks(...)`; list them before the hooks that should see the
        weaker scores.

    Raises:
        ValueError: a scale beyond `rvelens.hooks.strengths.STRONGEST`, or a shift that is NaN or
            infinity; minus infinity hides the image.
    """
    check_strength("scale", abs(scale))
    if not shift < math.inf:
        raise ValueError(f"shift={shift}: expected a number below infinity; pass a smaller one.")
    hook = DilutionHook(float(scale), float(shift))
    return [(scores_of(layer), hook) for layer in layers]
