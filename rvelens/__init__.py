"""rvelens: see and steer attention in vision-language models."""

from __future__ import annotations

from rvelens.contrastive import ContrastivePair
from rvelens.model import HookedLVLM
from rvelens.profile import ARSProfile
from rvelens.scores import score_heads
from rvelens.tokens import TokenMap, attach_tokens

__all__ = [
    "ARSProfile",
    "ContrastivePair",
    "HookedLVLM",
    "TokenMap",
    "attach_tokens",
    "score_heads",
]
__version__ = "0.1.0"
