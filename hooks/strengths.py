"""The range of strengths: what float32 can still tell apart from rounding."""

from __future__ import annotations

STRONGEST = 1000.0


def check_strength(name: str, value: float) -> None:
    """Raise ValueError for a strength or factor that is negative, no number, or above `STRONGEST`."""
    if not 0 <= value <= STRONGEST:
        raise ValueError(
            f"{name}={value}: expected a finite strength from 0 to {STRONGEST:g}; "
            "choose one in this range."
        )
