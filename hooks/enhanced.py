"""Recording what RVE does: which image tokens each layer enhanced, and which it left out and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from rvelens.hooks.rows import image_part, last_row
from rvelens.hooks.rve import RVEHook
from rvelens.tokens import tokens_of


@dataclass(frozen=True, eq=False)
class Masks:
    """Equations 4 and 5 of one layer, over the image tokens of each sample.

    Attributes:
        enhancing: M_enh, what the sensitive heads look at most.
        denoising: M_den, what the insensitive heads look at most.
        target: M, what was in fact enhanced.
    """

    enhancing: Bool[Tensor, "batch image"]
    denoising: Bool[Tensor, "batch image"]
    target: Bool[Tensor, "batch image"]

    @property
    def removed(self) -> Bool[Tensor, "batch image"]:
        """What the sensitive heads asked for and the denoising mask removed."""
        return self.enhancing & ~self.target


@dataclass(frozen=True, eq=False)
class MaskRecorder:
    """Keeps the masks that an RVE hook finds in the scores, without editing them."""

    rve: RVEHook
    cache: dict[int, Masks] = field(repr=False)

    def __call__(self, scores: Float[Tensor, "batch head query key"], hook: Any) -> None:
        """Store the masks of this forward in `cache[layer]`."""
        tokens = tokens_of(hook)
        row = last_row(scores.detach(), tokens)
        masks = image_part(self.rve.masks(row, tokens), tokens).bool()
        enhancing, denoising = masks.unbind(dim=1)
        target = enhancing & ~denoising if self.rve.denoise else enhancing
        self.cache[self.rve.layer] = Masks(enhancing, denoising, target)


def mask_recording_hooks(
    hooks: Iterable[tuple[str, Any]], cache: dict[int, Masks]
) -> list[tuple[str, Any]]:
    """The same hooks, with a recorder before each RVE hook.

    Args:
        hooks: as `rve_hooks` makes them; hooks of other kinds are passed on as they are.
        cache: filled at each forward with the masks by layer; of a generation, the last step's stay.

    Returns:
        (hook name, hook) for `model.hooks(...)`, in place of `hooks`.
    """
    recorded: list[tuple[str, Any]] = []
    for name, hook in hooks:
        if isinstance(hook, RVEHook):
            recorded.append((name, MaskRecorder(hook, cache)))
        recorded.append((name, hook))
    return recorded
