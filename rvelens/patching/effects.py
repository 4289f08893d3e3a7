"""Effects of patches, with named axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rvelens.model.frames import frames_library


@dataclass(frozen=True, eq=False)
class Effects:
    """How far each patch moves the answer from the corrupted run, 0, to the clean run, 1.

    Attributes:
        what: the name of the patched tensor, such as "z" or "hook_resid_pre".
        axes: the names of the axes: "layer", and "head" or "position".
        values: (patched - corrupted) / (clean - corrupted), each the difference of the two answers'
            logits; float32 on the CPU. Values below 0 and above 1 are possible. NaN in layers without
            attention.
        tokens: the text of the token at each position, if there is an axis "position".
    """

    what: str
    axes: tuple[str, ...]
    values: Float[Tensor, "layer ..."] = field(repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)

    def to_dataframe(self) -> Any:
        """A pandas frame with a row for each patch: a column for each axis, `token`, and `effect`.

        Raises:
            ValueError: pandas is not installed.
        """
        numbers = np.indices(self.values.shape).reshape(len(self.axes), -1)
        columns = dict(zip(self.axes, numbers, strict=True))
        if self.tokens:
            columns["token"] = np.array(self.tokens, dtype=object)[columns["position"]]
        return frames_library().DataFrame({**columns, "effect": self.values.flatten().numpy()})
