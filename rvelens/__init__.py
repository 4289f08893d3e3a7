"""rvelens: see and steer attention in vision-language models.

Names are imported when they are first used: torch, transformers and TransformerLens take seconds.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvelens.heads.pair import ContrastivePair
    from rvelens.heads.profile import ARSProfile
    from rvelens.model.bridge import follow_bridge
    from rvelens.model.hooked_lvlm import HookedLVLM
    from rvelens.scores import score_heads
    from rvelens.tokens.token_map import TokenMap, attach_tokens

__all__ = [
    "ARSProfile",
    "ContrastivePair",
    "HookedLVLM",
    "TokenMap",
    "attach_tokens",
    "follow_bridge",
    "score_heads",
]
__version__ = "0.1.0"

# Where each public name is defined.
_MODULES = {
    "ARSProfile": "rvelens.heads.profile",
    "ContrastivePair": "rvelens.heads.pair",
    "HookedLVLM": "rvelens.model.hooked_lvlm",
    "TokenMap": "rvelens.tokens.token_map",
    "attach_tokens": "rvelens.tokens.token_map",
    "follow_bridge": "rvelens.model.bridge",
    "score_heads": "rvelens.scores",
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of the package, when it is first used."""
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    elif not name.startswith("_") and find_spec(f"rvelens.{name}") is not None:
        return import_module(f"rvelens.{name}")
    else:
        raise AttributeError(f"module 'rvelens' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
