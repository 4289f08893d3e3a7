"""Frames of pandas, which is an extra."""

from __future__ import annotations

from typing import Any


def frames_library() -> Any:
    """pandas; raises ValueError where it is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError(
            "a frame needs pandas, which is not installed: expected the extra [frames]; "
            "pip install 'rvelens[frames]'."
        ) from error
    return pandas
