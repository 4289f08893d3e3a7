"""Token maps ride on the caches that they describe, so that copies of a cache take them along."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from rvelens.tokens import TokenMap

_ATTRIBUTE = "_rvelens_tokens"


def carry_map(cache: Any, tokens: TokenMap | None) -> None:
    """Put the map of a cache's keys on it; None where their roles are unknown."""
    setattr(cache, _ATTRIBUTE, tokens)


def carried_map(cache: Any) -> TokenMap | None:
    """The map that rides on a cache, if a forward that was followed filled it."""
    return getattr(cache, _ATTRIBUTE, None)


def map_behind(cache: Any, n_past: int, batch: int) -> TokenMap | None:
    """The map of the first keys of a cache, for a forward of some batch; None if it does not fit.

    A cache that holds more than its map tells was filled by another model. A batch that is no multiple
    of the map's was picked by other means than the cache's own methods.
    """
    tokens = carried_map(cache) if n_past else None
    if tokens is None or n_past > tokens.n_keys or batch % tokens.batch:
        return None
    return tokens.crop(n_past).expand(batch)


def install() -> None:
    """Let the methods of transformers' caches that pick samples pick them in the map, too; once."""
    from transformers.cache_utils import Cache

    for name, rows in _ROWS.items():
        method = getattr(Cache, name)
        if not hasattr(method, _ATTRIBUTE):
            setattr(Cache, name, _picking(method, rows))


def _indexed(rows: Tensor, samples: Any) -> Tensor:
    return rows[samples.to(rows.device) if isinstance(samples, Tensor) else samples]


def _repeated(rows: Tensor, repeats: Any) -> Tensor:
    return rows.repeat_interleave(
        repeats.to(rows.device) if isinstance(repeats, Tensor) else repeats
    )


# What each method of a cache makes of the numbers of its rows; None: it empties the cache.
_ROWS: dict[str, Callable[[Tensor, Any], Tensor] | None] = {
    "reorder_cache": _indexed,
    "batch_select_indices": _indexed,
    "batch_repeat_interleave": _repeated,
    "reset": None,
}


def _picking(method: Any, rows: Callable[[Tensor, Any], Tensor] | None) -> Any:
    @wraps(method)
    def with_map(cache: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(cache, *args, **kwargs)
        tokens = carried_map(cache)
        if tokens is not None:
            samples = (*args, *kwargs.values())
            picked = rows(torch.arange(tokens.batch), samples[0]) if rows and samples else None
            carry_map(cache, None if picked is None else tokens.pick(picked))
        return result

    setattr(with_map, _ATTRIBUTE, True)
    return with_map
