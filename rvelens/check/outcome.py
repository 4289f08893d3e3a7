"""What a check returns, and which numbers count as equal in a dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Status = Literal["passed", "failed", "not applicable"]
_EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Outcome:
    """The result of a check.

    Attributes:
        status: passed, failed or not applicable.
        reason: what was compared, or why the check failed or does not apply.
        measured: the largest difference; None where the check compares no numbers.
        limit: the largest difference that passes.
    """

    status: Status
    reason: str
    measured: float | None = None
    limit: float | None = None


def passed(reason: str) -> Outcome:
    """A check that passed without numbers."""
    return Outcome("passed", reason)


def failed(reason: str) -> Outcome:
    """A check that failed, with the reason."""
    return Outcome("failed", reason)


def not_applicable(reason: str) -> Outcome:
    """A check that this model does not need or cannot have, with the reason."""
    return Outcome("not applicable", reason)


def within(measured: float, limit: float, reason: str) -> Outcome:
    """Passed if a difference is at most its limit; NaN fails."""
    return Outcome("passed" if measured <= limit else "failed", reason, measured, limit)


@dataclass(frozen=True)
class Tolerance:
    """The limits that follow from a dtype.

    Attributes:
        dtype: the dtype of the weights.
        whole: limit for logits of two forwards, see `apart`. Rounding accumulates over the layers.
    """

    dtype: torch.dtype
    whole: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tolerance:
        """The limits of a dtype: 16 of its units of rounding for whole forwards, 1e-4 at least."""
        return cls(dtype, max(1e-4, 16 * torch.finfo(dtype).eps))

    def weights(self, largest_score: float) -> float:
        """Limit for attention weights from equal queries and keys; both are computed in float32."""
        return 16 * _EPS * max(8.0, largest_score)

    def row(self, largest_score: float, largest_value: float) -> float:
        """Limit for a row of z; weights and result are rounded to the dtype."""
        rounding = 8 * torch.finfo(self.dtype).eps
        return max(rounding, self.weights(largest_score)) * largest_value


def apart(a: Float[Tensor, "*rows vocab"], b: Float[Tensor, "*rows vocab"]) -> float:
    """The largest distance of two rows of logits, as a share of the second one's length.

    A number that is added to all logits of a row changes no probability, so means are removed first.
    """
    x, y = (t.float() - t.float().mean(dim=-1, keepdim=True) for t in (a, b))
    distance = (x - y).norm(dim=-1) / y.norm(dim=-1).clamp(min=1e-12)
    return float("nan") if distance.isnan().any() else float(distance.max())


def describe_error(error: BaseException) -> str:
    """What an exception says, on a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
