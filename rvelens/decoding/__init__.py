"""Contrastive decoding: logits processors with a cached second branch.

`*_negative` makes the inputs of the second branch; `vcd`, `icd` and `text_guidance` make the
processor of one generation from them.
"""

from __future__ import annotations

from rvelens.decoding.contrast import ContrastProcessor
from rvelens.decoding.icd import icd, icd_negative
from rvelens.decoding.pai import text_guidance, text_negative
from rvelens.decoding.vcd import diffused, vcd, vcd_negative

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
