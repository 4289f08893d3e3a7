"""Kernels and graph breaks of one decode step, arithmetic of any call: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import Cache, DynamicCache, StaticCache

# Operations that give other shapes, strides or names to memory that is there already. They run on the
# CPU alone and launch no kernel, so they are not counted; every other operation launches at least one.
VIEW_OPERATIONS = frozenset(
    f"aten.{name}"
    for name in (
        "_reshape_alias",
        "_unsafe_view",
        "alias",
        "as_strided",
        "detach",
        "diagonal",
        "expand",
        "lift_fresh",
        "permute",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
    )
)


class _Kernels(TorchDispatchMode):
    """Counts the operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the operation and run it."""
        self.n += str(func.overloadpacket) not in VIEW_OPERATIONS
        return func(*args, **(kwargs or {}))


def count_arithmetic(call: Callable[[], Any]) -> int:
    """Multiplications of matrix products, convolutions and attention in a call.

    Attention counts the keys that a causal mask hides, as torch counts them on a GPU.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention}) as count:
        call()
    return count.get_total_flops() // 2  # torch counts an addition beside each


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def decode_step(model: Any, inputs: Mapping[str, Tensor], cache: Cache) -> dict[str, Any]:
    """Arguments of the first decode step behind a prompt.

    Args:
        model: of transformers.
        inputs: the prompt.
        cache: an empty cache; the prompt fills it, under the hooks that are on.
    """
    logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    mask = inputs["attention_mask"]
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return {
        "input_ids": logits[:, -1:].argmax(dim=-1),
        "attention_mask": mask,
        "position_ids": mask.sum(dim=1, keepdim=True) - 1,
        "past_key_values": cache,
        "use_cache": True,
    }


@torch.no_grad()
def count_kernels(model: Any, inputs: Mapping[str, Tensor]) -> int:
    """Operations of one decode step behind a dynamic cache that are no views.

    A GPU may run more than one kernel for an operation, and the same ones in every setting.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    step = decode_step(model, inputs, cache)
    return count_operations(lambda: model(**step))


def count_operations(call: Callable[[], Any]) -> int:
    """Operations of a call that are no views."""
    with _Kernels() as count:
        call()
    return count.n


@torch.no_grad()
def count_graph_breaks(model: Any, inputs: Mapping[str, Tensor]) -> int:
    """Graph breaks of one decode step compiled behind a static cache.

    The graphs are collected and run as they are, so no compiler is needed. Whatever was compiled
    before in this process is forgotten.

    Raises:
        RuntimeError: nothing was compiled.
    """
    n_prompt = inputs["input_ids"].shape[1]
    config = model.config.get_text_config()
    step = decode_step(model, inputs, StaticCache(config=config, max_cache_len=n_prompt + 8))
    graphs: list[Any] = []

    def collect(graph: Any, example_inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        torch.compile(model.__call__, backend=collect)(**step)
        reported = sum(torch._dynamo.utils.counters["graph_break"].values())
    finally:
        torch._dynamo.reset()
    if not graphs:
        raise RuntimeError(
            "torch.compile compiled nothing: expected at least one graph of a decode step; unset "
            "TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE."
        )
    return max(len(graphs) - 1, reported)
