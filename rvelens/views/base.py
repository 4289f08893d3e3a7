"""What a view is, and what is asked of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from rvelens.model.hooked_lvlm import HookedLVLM


@dataclass(frozen=True, eq=False)
class ViewInput:
    """What a view is asked about.

    Attributes:
        model: the hooked model.
        inputs: a batch of prompts, as `model.prepare` makes them.
        targets: the token of each prompt that is explained; None for the likeliest next token.
    """

    model: HookedLVLM
    inputs: Any
    targets: Int[Tensor, " sample"] | None = None

    def target_of(self, logits: Float[Tensor, "sample vocab"]) -> Float[Tensor, " sample"]:
        """The logit of each prompt's target."""
        targets = logits.argmax(dim=-1) if self.targets is None else self.targets
        return logits.gather(-1, targets.to(logits.device)[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class View:
    """A way to look at a prediction.

    Attributes:
        name: as `view_images(view=...)` takes it.
        about: its definition, one line.
        source: where it comes from.
        compute: from what is asked to a number for each image token; larger is more.
            Samples with fewer image tokens end in zeros.
    """

    name: str
    about: str
    source: str
    compute: Callable[[ViewInput], Float[Tensor, "sample image"]]
