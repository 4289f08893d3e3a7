"""Hooks: functions of tensors, for HookedLVLM and for TransformerLens' own models.

Each `*_hooks` function returns a list of (hook name, hook), built once for any number of prompts.
"""

from __future__ import annotations

from rvelens.hooks.ablate import head_mask_hooks
from rvelens.hooks.enhanced import mask_recording_hooks
from rvelens.hooks.pai import devils_hooks, pai_hooks
from rvelens.hooks.record import ars_caching_hooks
from rvelens.hooks.region import dilution_hooks, region_hooks
from rvelens.hooks.rve import rve_hooks
from rvelens.hooks.vaf import vaf_hooks

__all__ = [
    "ars_caching_hooks",
    "devils_hooks",
    "dilution_hooks",
    "head_mask_hooks",
    "mask_recording_hooks",
    "pai_hooks",
    "region_hooks",
    "rve_hooks",
    "vaf_hooks",
]
