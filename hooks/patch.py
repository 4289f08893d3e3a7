"""Activation patching: a tensor of another run in the place of this one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HeadPatch:
    """Puts another run's outputs of heads in the place of the last token's, through `hook_z`."""

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False

    heads: tuple[int, ...]
    z: Float[Tensor, "batch patched d_head"] = field(repr=False)

    def __call__(
        self, z: Float[Tensor, "batch query head d_head"], hook: Any
    ) -> Float[Tensor, "batch query head d_head"]:
        """The heads' outputs, before `o_proj`, with the patched ones."""
        z = z.clone()
        z[:, -1, list(self.heads)] = self.z
        return z


@dataclass(frozen=True, eq=False)
class LastRowRecorder:
    """Keeps the heads' outputs of the last token; then `before`, if given, takes the place of all."""

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False

    point: str
    outputs: dict[str, Float[Tensor, "batch head d_head"]] = field(repr=False)
    before: Float[Tensor, "batch query head d_head"] | None = field(default=None, repr=False)

    def __call__(
        self, z: Float[Tensor, "batch query head d_head"], hook: Any
    ) -> Float[Tensor, "batch query head d_head"] | None:
        """Store the last row."""
        self.outputs[self.point] = z[:, -1]
        return self.before


@dataclass(frozen=True, eq=False)
class Replacement:
    """Puts another run's whole tensor in the place of a hook point's."""

    in_place: ClassVar[bool] = False
    other: Float[Tensor, "*any"] = field(repr=False)

    def __call__(self, x: Float[Tensor, "*any"], hook: Any) -> Float[Tensor, "*any"]:
        """The other run's tensor."""
        return self.other


@dataclass(frozen=True, eq=False)
class PositionPatch:
    """Puts another run's vectors in the place of some, at other positions in each sample.

    Attributes:
        other: the other run's tensor.
        positions: which positions are replaced, by sample of the batch; others stay.
    """

    in_place: ClassVar[bool] = False
    other: Float[Tensor, "1 query d_model"] = field(repr=False)
    positions: Mapping[int, Int[Tensor, " patched"]] = field(repr=False)

    def __call__(
        self, x: Float[Tensor, "batch query d_model"], hook: Any
    ) -> Float[Tensor, "batch query d_model"]:
        """The vectors with the other run's in the chosen places."""
        x = x.clone()
        for sample, chosen in self.positions.items():
            x[sample, chosen] = self.other[0, chosen]
        return x
