"""Token maps ride on the caches that they describe, so that copies of a cache take them along."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from rvelens.tokens import TokenMap

_ATTRIBUTE = "_rvelens_tokens"


def carry_map(cache: Any, tokens: TokenMap | None) -> None:
    """Put the map of a cache's keys on it; None where their roles are unknown."""
    setattr(cache, _ATTRIBUTE, tokens)


def carried_map(cache: Any) -> TokenMap | None:
    """The map of a cache's keys, if a forward that was followed filled it."""
    return getattr(cache, _ATTRIBUTE, None)


def install() -> None:
    """Let the methods of transformers' caches that pick samples pick them in the map, too; once."""
    from transformers.cache_utils import Cache

    for name in ("reorder_cache", "batch_select_indices", "batch_repeat_interleave", "reset"):
        method = getattr(Cache, name)
        if not hasattr(method, _ATTRIBUTE):
            setattr(Cache, name, _picking(method))


def _picking(method: Any) -> Any:
    @wraps(method)
    def with_map(cache: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(cache, *args, **kwargs)
        tokens = carried_map(cache)
        if tokens is not None:
            samples = (*args, *kwargs.values())
            carry_map(cache, _picked(tokens, *samples) if samples else None)
        return result

    setattr(with_map, _ATTRIBUTE, True)
    return with_map


def _picked(tokens: TokenMap, samples: torch.Tensor | int) -> TokenMap:
    """The map of the picked samples, or of all of them repeated in place."""
    if isinstance(samples, int):
        return tokens.expand(tokens.batch * samples)
    return tokens.pick(samples)
