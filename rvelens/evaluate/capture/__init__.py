"""Activations of many questions on disk, in shards that are read back one tensor at a time.

- `points.py`: selects hook points, and the rows of each question in their tensors.
- `shards.py`: one safetensors file for each batch, with its questions in the header.
- `run.py`: captures all questions, resumable, in one process or several.
- `read.py`: reads captured tensors lazily.
"""

from __future__ import annotations

from rvelens.evaluate.capture.read import Capture, open_capture
from rvelens.evaluate.capture.run import Captured, CaptureRequest, capture, estimate_size

__all__ = ["Capture", "CaptureRequest", "Captured", "capture", "estimate_size", "open_capture"]
