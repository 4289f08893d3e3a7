"""Token maps ride on the caches that they describe, so that copies of a cache take them along.

A map holds for the very keys beside which it was put there. A cache whose keys were exchanged by other
means than its own methods has no map any more.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from rvelens.tokens.token_map import TokenMap

_ATTRIBUTE = "_rvelens_tokens"


@dataclass(eq=False)
class Carried:
    """What rides on a cache; copies and pickles of the cache copy both, so they still go together.

    Attributes:
        tokens: the map; None where roles are unknown.
        keys: the tensors that the cache's layers held then; None while a forward replaces them.
    """

    tokens: TokenMap | None
    keys: tuple[Tensor, ...] | None


def carry_map(cache: Any, tokens: TokenMap | None) -> None:
    """Put the map of a cache's keys on it; None where their roles are unknown."""
    setattr(cache, _ATTRIBUTE, Carried(tokens, _keys_of(cache)))


def carried_map(cache: Any) -> TokenMap | None:
    """The map of the keys of a cache, if a forward that was followed filled it."""
    carried: Carried | None = getattr(cache, _ATTRIBUTE, None)
    if carried is None or carried.keys is None:
        return None
    keys = _keys_of(cache)
    same = len(keys) == len(carried.keys) and all(map(operator.is_, keys, carried.keys))
    return carried.tokens if same else None


def has_map(cache: Any) -> bool:
    """Whether a map was put on a cache, be it of the keys that it holds now or not."""
    carried: Carried | None = getattr(cache, _ATTRIBUTE, None)
    return carried is not None and carried.tokens is not None


def static_map(cache: Any) -> TokenMap | None:
    """The map behind a static cache, which counts on the device; None behind any other."""
    carried: Carried | None = getattr(cache, _ATTRIBUTE, None)
    tokens = None if carried is None else carried.tokens
    return None if tokens is None or tokens.length is None else tokens


def map_behind(cache: Any, n_past: int, batch: int) -> TokenMap | None:
    """The map of the first keys of a cache, for a forward of some batch; None if it does not fit.

    A cache that holds more than its map tells was filled by another model. A batch that is no multiple
    of the map's was picked by other means than the cache's own methods.
    """
    tokens = carried_map(cache) if n_past else None
    if tokens is None or n_past > tokens.n_keys or batch % tokens.batch:
        return None
    return tokens.crop(n_past).expand(batch)


def release_keys(cache: Any) -> None:
    """Let a forward replace the keys of a cache without holding the earlier ones in memory."""
    carried: Carried | None = getattr(cache, _ATTRIBUTE, None)
    if carried is not None and static_map(cache) is None:
        # Anew: a shallow copy of the cache may hold the same one.
        setattr(cache, _ATTRIBUTE, Carried(carried.tokens, None))


def wrap_caches() -> None:
    """Let the methods of transformers' caches that pick samples or keys pick them in the map; once."""
    from transformers.cache_utils import Cache

    for name, pick in _PICKS.items():
        method = getattr(Cache, name)
        if not hasattr(method, _ATTRIBUTE):
            setattr(Cache, name, _picking(method, pick))


def _keys_of(cache: Any) -> tuple[Tensor, ...]:
    """The keys that a cache holds now; none of one that moves them between devices by itself."""
    if getattr(cache, "offloading", False):
        return ()
    keys = (getattr(layer, "keys", None) for layer in getattr(cache, "layers", ()))
    return tuple(x for x in keys if isinstance(x, Tensor))


def _reordered(tokens: TokenMap, cache: Any, samples: Any) -> TokenMap:
    rows = torch.arange(tokens.batch)
    return tokens.pick(rows[samples.to(rows.device) if isinstance(samples, Tensor) else samples])


def _repeated(tokens: TokenMap, cache: Any, repeats: Any) -> TokenMap:
    rows: Int[Tensor, " batch"] = torch.arange(tokens.batch)
    repeats = repeats.to(rows.device) if isinstance(repeats, Tensor) else repeats
    return tokens.pick(rows.repeat_interleave(repeats))


def _cropped(tokens: TokenMap, cache: Any, *_: Any) -> TokenMap | None:
    n_keys = int(cache.get_seq_length())
    return tokens.crop(n_keys) if 0 < n_keys <= tokens.n_keys else None


def _emptied(tokens: TokenMap, cache: Any, *_: Any) -> None:
    return None


# What each method of a cache makes of its map.
_PICKS: dict[str, Callable[..., TokenMap | None]] = {
    "reorder_cache": _reordered,
    "batch_select_indices": _reordered,
    "batch_repeat_interleave": _repeated,
    "crop": _cropped,
    "reset": _emptied,
}


def _picking(method: Any, pick: Callable[..., TokenMap | None]) -> Any:
    @wraps(method)
    def with_map(cache: Any, *args: Any, **kwargs: Any) -> Any:
        tokens = carried_map(cache)
        result = method(cache, *args, **kwargs)
        if hasattr(cache, _ATTRIBUTE):
            picked = None if tokens is None else pick(tokens, cache, *args, *kwargs.values())
            carry_map(cache, picked)
        return result

    setattr(with_map, _ATTRIBUTE, True)
    return with_map
