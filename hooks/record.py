"""Recording the last token's attention to the image, for ARS (paper, equation 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.rows import image_part, last_row
from rvelens.tokens.token_map import tokens_of


@dataclass(frozen=True)
class Recorder:
    """Keeps one layer's post-softmax attention from the last token to the image tokens."""

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False
    layer: int
    cache: dict[int, Float[Tensor, "batch head image"]] = field(repr=False)

    def __call__(self, pattern: Float[Tensor, "batch head query key"], hook: Any) -> None:
        """Store A of equation 3 in `cache[layer]`; the pattern itself is left alone."""
        tokens = tokens_of(hook)
        self.cache[self.layer] = image_part(last_row(pattern.detach(), tokens).float(), tokens)


@refuse_wrong_types
def ars_caching_hooks(
    layers: Iterable[int], cache: dict[int, Float[Tensor, "batch head image"]]
) -> list[tuple[str, Recorder]]:
    """Hooks that record the last token's attention to the image tokens.

    Args:
        layers: layers to record.
        cache: filled at each forward with float32 [batch head image] by layer: post-softmax, image
            tokens only, not renormalised; samples with fewer image tokens end in zeros.

    Returns:
        (hook name, hook) for `model.hooks(...)`.
    """
    return [(f"blocks.{layer}.attn.hook_pattern", Recorder(layer, cache)) for layer in layers]
