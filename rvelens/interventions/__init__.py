"""Interventions: the methods that are compared, and contrastive decoding as logits processors.

`*_negative` makes the inputs of the second branch; `vcd`, `icd` and `text_guidance` make the
processor of one generation from them.
"""

from __future__ import annotations

from rvelens.interventions.contrast import ContrastProcessor
from rvelens.interventions.icd import icd, icd_negative
from rvelens.interventions.pai import text_guidance, text_negative
from rvelens.interventions.vcd import diffused, vcd, vcd_negative

__all__ = [
    "ContrastProcessor",
    "diffused",
    "icd",
    "icd_negative",
    "text_guidance",
    "text_negative",
    "vcd",
    "vcd_negative",
]
