"""Checkpoints in other formats, turned into folders that transformers loads."""

from __future__ import annotations

from rvelens.convert.sharegpt4v import Conversion, convert_sharegpt4v

__all__ = ["Conversion", "convert_sharegpt4v"]
