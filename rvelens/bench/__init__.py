"""Speed and memory, measured side by side in one process.

- `shapes.py`: LLaVAs of a given shape with random weights.
- `clock.py`: timing of several things in turn.
- `generation.py`: generation under hooks against plain SDPA; all that `rvelens bench` reports.
- `memory.py`: what an ARS capture adds to the peak.
- `sharing.py`: questions a second with and without a shared prefix.
- `scoring.py`: time of `score_heads` against a forward for each text.
- `settings.py`: time of 32 settings side by side against one plain evaluation.
"""

from __future__ import annotations

from rvelens.bench.generation import BRIDGE, PLAIN, RVE, UNHOOKED, boot_bridge, run, run_shape
from rvelens.bench.shapes import SHAPES, Shape, build

__all__ = [
    "BRIDGE",
    "PLAIN",
    "RVE",
    "SHAPES",
    "UNHOOKED",
    "Shape",
    "boot_bridge",
    "build",
    "run",
    "run_shape",
]
