"""Model families: prompt, presets and patch grid of each kind of vision-language model."""

from __future__ import annotations

from rvelens.families.base import Family
from rvelens.families.registry import FAMILIES, family_of, register

__all__ = ["FAMILIES", "Family", "family_of", "register"]
