"""Recording what RVE does: which image tokens each layer enhanced, and which it left out and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.restrict import Restricted
from rvelens.hooks.rows import image_part, last_row
from rvelens.hooks.rve import RVEHook
from rvelens.tokens.token_map import tokens_of

# A hook point, or a filter of their names.
Name = str | Callable[[str], bool]


@dataclass(frozen=True, eq=False)
class Masks:
    """Equations 4 and 5 of one layer, over the image tokens of each sample.

    Attributes:
        enhancing: M_enh, what the sensitive heads look at most.
        denoising: M_den, what the insensitive heads look at most.
        target: M, what was in fact enhanced; empty in a sample that `max_entropy` left alone.
        sure: samples that `max_entropy` did not leave alone; None: all of them.
    """

    enhancing: Bool[Tensor, "batch image"]
    denoising: Bool[Tensor, "batch image"]
    target: Bool[Tensor, "batch image"]
    sure: Bool[Tensor, " batch"] | None = None

    @property
    def removed(self) -> Bool[Tensor, "batch image"]:
        """What the sensitive heads asked for and the denoising mask removed."""
        removed = self.enhancing & ~self.target
        return removed if self.sure is None else removed & self.sure[:, None]


@dataclass(frozen=True, eq=False)
class MaskRecorder:
    """Keeps the masks that an RVE hook finds in the scores, without editing them."""

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False
    rve: RVEHook
    cache: dict[int, Masks] = field(repr=False)

    def __call__(self, scores: Float[Tensor, "batch head query key"], hook: Any) -> None:
        """Store the masks of this forward in `cache[layer]`."""
        tokens = tokens_of(hook)
        row = last_row(scores.detach(), tokens)
        target = self.rve.target(row, tokens)[:, None]
        masks = torch.cat([self.rve.masks(row, tokens), target], dim=1)
        enhancing, denoising, target = image_part(masks, tokens).bool().unbind(dim=1)
        sure = self.rve.sure(row, tokens) if self.rve.max_entropy < 1 else None
        self.cache[self.rve.layer] = Masks(enhancing, denoising, target, sure)


def rve_of(hook: Any) -> RVEHook | None:
    """The RVE hook that a hook is, or restricts; None for hooks of other kinds."""
    inner = hook.hook if isinstance(hook, Restricted) else hook
    return inner if isinstance(inner, RVEHook) else None


@refuse_wrong_types
def mask_recording_hooks(
    hooks: Iterable[tuple[Name, Any]], cache: dict[int, Masks]
) -> list[tuple[Name, Any]]:
    """The same hooks, with a recorder before each RVE hook.

    Args:
        hooks: as `rve_hooks` makes them; hooks of other kinds are passed on as they are.
        cache: filled at each forward with the masks by layer; of a generation, the last step's stay.

    Returns:
        (hook name, hook) for `model.hooks(...)`, in place of `hooks`.
    """
    recorded: list[tuple[Name, Any]] = []
    for name, hook in hooks:
        rve = rve_of(hook)
        if rve is not None:
            recorder = MaskRecorder(rve, cache)
            # Under the same conditions as the hook, so that only what it enhances is recorded.
            same = replace(hook, hook=recorder) if isinstance(hook, Restricted) else recorder
            recorded.append((name, same))
        recorded.append((name, hook))
    return recorded
