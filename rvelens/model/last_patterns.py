"""The last row's attention at every step of a generation, computed once after it.

Hooks on the pattern compute each row in addition to the model's own attention, at every step. If no
hook edits a layer, and its keys do not change once written, the queries of the steps are enough. After
the generation, one product with all keys gives every row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rvelens.seam.arguments import SHARING
from rvelens.seam.call import Call
from rvelens.seam.generation import several_rows


@dataclass(eq=False)
class LastCall:
    """The latest call of a layer's attention function in this thread, and its last query."""

    thread: int = field(default_factory=threading.get_ident)
    call: Call | None = None
    query: Float[Tensor, "1 head 1 d_head"] | None = None

    def __call__(self, call: Call) -> None:
        """Note the call; a prompt's other queries are not kept."""
        if threading.get_ident() == self.thread:
            n_rows = call.query.shape[2]
            self.query = call.query[:, :, -1:].clone() if n_rows > 1 else call.query
            self.call = call


def deferrable_layers(model: Any) -> list[int]:
    """Layers of a hooked model whose patterns can be computed after a generation.

    They have full attention without hooks, in a decoder whose dynamic cache does not change its keys.
    """
    decoder: Any = model.hf_model.get_decoder()
    own_cache = model.hf_model.generation_config.cache_implementation is not None
    if type(decoder).__name__ not in SHARING or own_cache or several_rows(model.hf_model, {}):
        return []
    if decoder.config._attn_implementation not in ("sdpa", "eager") or _slides(decoder.config):
        return []
    return [n for n in model.attention_layers if not model.blocks[n].attn.on]


def _slides(config: Any) -> bool:
    """Whether some layers keep the newest keys only."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None


@contextmanager
def watching(model: Any, layers: Sequence[int]) -> Iterator[dict[int, LastCall]]:
    """Record the latest call of each layer's attention function until the block ends.

    Raises:
        ValueError: a layer that cannot be hooked exactly, as for hooks on its pattern.
    """
    model._check_points([f"blocks.{layer}.attn.hook_pattern" for layer in layers])
    calls = {layer: LastCall() for layer in layers}
    try:
        for layer, last_call in calls.items():
            model.blocks[layer].attn.watch = last_call
        yield calls
    finally:
        for layer in layers:
            model.blocks[layer].attn.watch = None


@torch.no_grad()
def patterns_of(
    calls: Mapping[int, Call],
    queries: Sequence[Mapping[int, Float[Tensor, "1 head 1 d_head"]]],
    image: Bool[Tensor, " prompt"],
) -> dict[int, Float[Tensor, "step head image"]]:
    """Attention of every step's last row to the image tokens, by layer, on the CPU.

    Args:
        calls: the latest call of each layer, whose keys are those of every step.
        queries: of each step, by layer.
        image: which tokens of the prompt are of the image.
    """
    patterns = {}
    for layer, call in calls.items():
        n_steps, n_keys = len(queries), call.key.shape[2]
        device = call.key.device
        # The row of a step sees the keys up to its own, and the newest row all of them.
        last = n_keys - n_steps + torch.arange(n_steps, device=device)
        visible = torch.arange(n_keys, device=device) <= last[:, None]
        rows = torch.cat([query[layer] for query in queries], dim=2)
        scores, _ = replace(call, query=rows, mask=visible[None, None]).scores(True, None)
        at = image.nonzero().flatten().to(device)
        patterns[layer] = scores.softmax(dim=-1)[0].index_select(-1, at).transpose(0, 1).cpu()
    return patterns
