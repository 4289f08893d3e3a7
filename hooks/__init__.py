"""Hooks: functions of tensors, for HookedLVLM and for TransformerLens' own models.

Each `*_hooks` function returns a list of (hook name, hook), built once for any number of prompts. A
hook of one's own is any function of a tensor and its hook point; `LastRowHook`, `tokens_of` and
`visible_image` are what those here are made of.
"""

from __future__ import annotations

from rvelens.hooks.ablate import head_mask_hooks
from rvelens.hooks.enhanced import mask_recording_hooks
from rvelens.hooks.pai import devils_hooks, pai_hooks
from rvelens.hooks.record import ars_caching_hooks
from rvelens.hooks.region import dilution_hooks, region_hooks
from rvelens.hooks.restrict import restrict
from rvelens.hooks.rows import LastRowHook, visible_image
from rvelens.hooks.rve import rve_hooks
from rvelens.hooks.vaf import vaf_hooks
from rvelens.tokens.token_map import tokens_of

__all__ = [
    "LastRowHook",
    "ars_caching_hooks",
    "devils_hooks",
    "dilution_hooks",
    "head_mask_hooks",
    "mask_recording_hooks",
    "pai_hooks",
    "region_hooks",
    "restrict",
    "rve_hooks",
    "tokens_of",
    "vaf_hooks",
    "visible_image",
]
