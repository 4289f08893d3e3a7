"""The type of a view, and its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from rvelens.model.hooked_lvlm import HookedLVLM


@dataclass(frozen=True, eq=False)
class ViewInput:
    """The input of a view.

    Attributes:
        model: the hooked model.
        inputs: a batch of prompts, as `model.prepare` makes them.
        targets: the token to explain for each prompt; None for the most likely next token.
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
        name: the name for `view_images(view=...)`.
        about: its definition in one line.
        source: the paper that it comes from.
        compute: a function from the input to a number for each image token; larger is more. Samples
            with fewer image tokens are padded with zeros.
    """

    name: str
    about: str
    source: str
    compute: Callable[[ViewInput], Float[Tensor, "sample image"]]
