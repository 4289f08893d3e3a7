"""Activation patching between two images, two texts, or a plain and a steered run.

The model runs on the corrupted prompt, with one tensor replaced by that of the clean run. The change of
the answer towards the clean run shows how much of the difference this tensor carries.

- `runs.py`: `pair_runs`, which runs both prompts and fixes the two answers.
- `last_row.py`: `patch_heads` and `patch_attention`, which patch only the last row, together in
  replays.
- `positions.py`: `patch_positions` and `patch_tokens`, at any position, in whole forwards.
- `effects.py`: the result type of these functions.

Source: Zhang and Nanda 2024, https://arxiv.org/abs/2309.16042; the names are those of
`transformer_lens.patching`, whose helpers also run on a `HookedLVLM`.
"""

from __future__ import annotations

from rvelens.patching.effects import Effects
from rvelens.patching.last_row import patch_attention, patch_heads
from rvelens.patching.positions import patch_positions, patch_tokens
from rvelens.patching.runs import Condition, RunPair, pair_runs

__all__ = [
    "Condition",
    "Effects",
    "RunPair",
    "pair_runs",
    "patch_attention",
    "patch_heads",
    "patch_positions",
    "patch_tokens",
]
