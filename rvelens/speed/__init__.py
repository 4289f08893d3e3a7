"""Speed and memory, measured side by side in one process.

- `shapes.py`: LLaVAs of a given shape with random weights.
- `clock.py`: timing of several things in turn.
- `generation.py`: generation under hooks against plain SDPA; all that `rvelens bench` measures.
- `counts.py`: kernels and graph breaks of one decode step.
- `results.py`: what `rvelens bench` reports.
- `memory.py`: what an ARS capture adds to the peak.
- `sharing.py`: questions a second with and without a shared prefix.
- `head_scores.py`: time of `score_heads` against a forward for each text.
- `settings.py`: time of 32 settings side by side against one plain evaluation.
"""

from __future__ import annotations

from rvelens.speed.counts import VIEW_OPERATIONS, count_graph_breaks, count_kernels, decode_step
from rvelens.speed.generation import boot_bridge, compile_config_of, run_bench, run_shape
from rvelens.speed.results import (
    BRIDGE,
    PLAIN,
    PLAIN_COMPILED,
    RVE,
    RVE_COMPILED,
    UNHOOKED,
    BenchResult,
    Conditions,
    Counts,
    OtherMeasurements,
    Ratio,
    ScoringResult,
    SettingsResult,
    SharingResult,
    Times,
    plain_of,
    read_result,
)
from rvelens.speed.shapes import SHAPES, Shape, build_random

__all__ = [
    "BRIDGE",
    "PLAIN",
    "PLAIN_COMPILED",
    "RVE",
    "RVE_COMPILED",
    "SHAPES",
    "UNHOOKED",
    "VIEW_OPERATIONS",
    "BenchResult",
    "Conditions",
    "Counts",
    "OtherMeasurements",
    "Ratio",
    "ScoringResult",
    "SettingsResult",
    "Shape",
    "SharingResult",
    "Times",
    "boot_bridge",
    "build_random",
    "compile_config_of",
    "count_graph_breaks",
    "count_kernels",
    "decode_step",
    "plain_of",
    "read_result",
    "run_bench",
    "run_shape",
]
