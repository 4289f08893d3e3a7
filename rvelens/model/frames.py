"""Data frames of pandas, which is an optional dependency."""

from __future__ import annotations

from typing import Any


def frames_library() -> Any:
    """The module pandas; raises ValueError if it is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError(
            "a frame needs pandas, which is not installed: expected the extra [frames]; "
            "pip install 'rvelens[frames]'."
        ) from error
    return pandas
