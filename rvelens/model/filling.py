"""Fills a cache with only the keys and values of a prompt.

Later tokens read the tokens before them only through keys and values. So the forward that fills a cache
stops when the last layer has written its keys and values. The attention and MLP of that layer, and the
logits, are not needed.

The cache has free room at its end, where later tokens are written in place. Caches of transformers copy
their whole content at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.compiler import is_compiling
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from rvelens.model.hooked_lvlm import HookedLVLM

# Keys that a layer has room for behind those it holds: an eighth more, and this many.
ROOM = 64


class Filled(Exception):  # noqa: N818  # it ends a forward that has done its work
    """The last layer has its keys and values."""


class RoomyLayer(DynamicLayer):
    """A cache layer that grows in place while there is room.

    Attributes:
        on_filled: called when keys and values were written, to end the forward; None to continue it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_filled: Callable[[], None] | None = None
        self._rooms: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Float[Tensor, "batch kv_head new d_head"],
        value_states: Float[Tensor, "batch kv_head new d_value"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values.

        Raises:
            Filled: the forward was run only to fill the cache.
        """
        if is_compiling() or torch.is_grad_enabled():
            super().update(key_states, value_states, *args, **kwargs)
        else:
            self._append(key_states, value_states)
        if self.on_filled is not None:
            self.on_filled()
            raise Filled
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def _append(
        self,
        keys: Float[Tensor, "batch kv_head new d_head"],
        values: Float[Tensor, "batch kv_head new d_value"],
    ) -> None:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        n_past, n_new = self.get_seq_length(), keys.shape[-2]
        before = (self.keys, self.values) if n_past else (None, None)
        rooms = self._rooms
        if rooms is None or not all(
            _grows_in_place(*pair, n_new) for pair in zip(rooms, before, strict=True)
        ):
            rooms = self._rooms = (
                _room_for(keys, before[0], n_past + n_new),
                _room_for(values, before[1], n_past + n_new),
            )
        for room, new in zip(rooms, (keys, values), strict=True):
            room[:, :, n_past : n_past + n_new] = new
        self.keys, self.values = (room[:, :, : n_past + n_new] for room in rooms)

    def batch_select_indices(self, indices: Int[Tensor, " picked"]) -> None:
        """Keep some samples; copies of a single sample are written only when more is appended."""
        if self.get_seq_length() and self.keys.shape[0] == 1:  # type: ignore[union-attr]
            self.keys = self.keys.expand(len(indices), -1, -1, -1)  # type: ignore[union-attr]
            self.values = self.values.expand(len(indices), -1, -1, -1)  # type: ignore[union-attr]
        else:
            super().batch_select_indices(indices)


def _grows_in_place(
    room: Float[Tensor, "rows kv_head slot d_any"],
    stored: Float[Tensor, "batch kv_head key d_any"] | None,
    n_new: int,
) -> bool:
    """Whether what a layer holds still is the beginning of its room, and more fits behind it."""
    return (
        stored is not None
        and stored.data_ptr() == room.data_ptr()
        and stored.stride() == room.stride()
        and stored.shape[0] == room.shape[0]
        and stored.shape[2] + n_new <= room.shape[2]
        and room.is_inference() <= torch.is_inference_mode_enabled()
    )


def _room_for(
    new: Float[Tensor, "batch kv_head new d_any"],
    stored: Float[Tensor, "batch kv_head key d_any"] | None,
    n_keys: int,
) -> Float[Tensor, "batch kv_head slot d_any"]:
    """Memory for `n_keys` keys and some more, with what a layer holds at its beginning."""
    n_slots = n_keys + n_keys // 8 + ROOM
    room = new.new_empty(*new.shape[:2], n_slots, new.shape[3])
    if stored is not None:
        room[:, :, : stored.shape[2]] = stored
    return room


def roomy_cache(model: HookedLVLM) -> DynamicCache:
    """An empty cache for a model; only layers of plain attention are replaced."""
    cache = DynamicCache(config=model.hf_model.get_decoder().config)
    cache.layers = [RoomyLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache


def fill(model: HookedLVLM, cache: Cache, **inputs: Any) -> None:
    """Run tokens after a cache to add their keys and values, and the token map stored with the cache.

    Args:
        model: the hooked model, without active hooks.
        cache: from `roomy_cache`. Other caches are filled by a whole forward.
        **inputs: arguments of the Hugging Face model.
    """
    last = cache.layers[-1] if cache.layers else None
    if isinstance(last, RoomyLayer):
        # The map gets onto the cache at the end of a forward, which this one does not reach.
        last.on_filled = partial(model._run.end, cache)
    try:
        model.hf_model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    except Filled:
        pass
    finally:
        if isinstance(last, RoomyLayer):
            last.on_filled = None
