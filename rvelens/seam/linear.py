"""Weights of linear modules, in the shape that they multiply in."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rvelens.files.wording import kind_of_value


def weight_of(module: nn.Module) -> Float[Tensor, "d_out d_in"]:
    """The weight of a plain linear module.

    Raises:
        ValueError: a module that is none, such as a quantised one or one with adapters.
    """
    reason = why_not_plain(module)
    if reason is not None:
        raise ValueError(
            f"the weight of {kind_of_value(module)} is asked for, and {reason}: expected an "
            "nn.Linear; load the model without quantisation, or merge its adapters first."
        )
    weight: Any = module.weight
    return weight


def why_not_plain(module: nn.Module) -> str | None:
    """Why a module's weight does not tell what it computes; None where it does."""
    weight = getattr(module, "weight", None)
    if hasattr(module, "base_layer"):
        return "it has adapters"
    shape = (getattr(module, "out_features", 0), getattr(module, "in_features", 0))
    if not isinstance(module, nn.Linear) or not isinstance(weight, Tensor):
        return "it is no linear module"
    if tuple(weight.shape) != shape or not weight.is_floating_point():
        return "its weight is quantised"
    return None
