"""Patches of only the last row: of one head, or of a layer's attention.

All of them patch `hook_z` in the last row. So they share one prefill, see `rvelens.model.last_row`.
Later layers run with the patch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.patch import HeadPatch, LastRowRecorder, Replacement
from rvelens.model.last_row import logits_under
from rvelens.patching.effects import Effects
from rvelens.patching.runs import RunPair

# What can be patched of a head, and the hook point of each.
OF_HEADS: Mapping[str, str] = {
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
}
OutputsByLayer = dict[int, Float[Tensor, "head d_head"]]


@refuse_wrong_types
def patch_heads(runs: RunPair, what: str = "z") -> Effects:
    """The effect of each head in the last row, when a part of it comes from the clean run.

    Args:
        runs: of `pair_runs`.
        what: "z", the head's output before `o_proj`; "pattern", its attention, with the values of the
            corrupted run; "q", its query; "k" and "v", the keys and values of all positions, but only
            for the last row. Query heads that share keys and values are patched one by one.

    Returns:
        effects [layer head].

    Raises:
        ValueError: an unknown part, or a part that this model cannot show exactly.
    """
    if what not in OF_HEADS:
        raise ValueError(
            f"what={what!r}: expected one of {', '.join(OF_HEADS)}; use patch_positions for others."
        )
    z = _clean_z(runs) if what == "z" else _z_with(runs, what)
    heads = [(head,) for head in range(runs.model.n_heads)]
    return Effects(what, ("layer", "head"), _effects(runs, z, heads))


@refuse_wrong_types
def patch_attention(runs: RunPair) -> Effects:
    """The effect of each layer's attention in the last row, with all head outputs of the clean run.

    It equals a patch of `hook_attn_out` at the last position.

    Returns:
        effects [layer].
    """
    heads = [tuple(range(runs.model.n_heads))]
    return Effects("attention", ("layer",), _effects(runs, _clean_z(runs), heads)[:, 0])


def _effects(
    runs: RunPair, z: OutputsByLayer, groups: list[tuple[int, ...]]
) -> Float[Tensor, "layer group"]:
    """Effects of patches of each group of heads in each layer; NaN in layers without attention."""
    model, corrupted = runs.model, runs.corrupted
    settings = [
        [*corrupted.hooks, (_point(layer, "z"), HeadPatch(heads, z[layer][None, list(heads)]))]
        for layer in z
        for heads in groups
    ]
    under = logits_under(model, corrupted.image, [corrupted.question], settings, runs.prompt)
    effects = runs.effect(torch.cat(list(under)))
    values = torch.full((model.n_layers, len(groups)), torch.nan)
    values[list(z)] = effects.reshape(len(z), len(groups))
    return values


def _clean_z(runs: RunPair) -> OutputsByLayer:
    """Each head's output of the last row, in the clean run."""
    layers = runs.model.attention_layers
    cache = runs.cache("clean", [_point(layer, "z") for layer in layers])
    return {layer: cache[_point(layer, "z")][0, -1] for layer in layers}


@torch.no_grad()
def _z_with(runs: RunPair, part: str) -> OutputsByLayer:
    """Each head's output of the last row in the corrupted run, with a part of the clean run.

    One forward: in each layer the part is replaced, the outputs are recorded, and then the corrupted
    run's own outputs take their place, so that layers behind it see the corrupted run.
    """
    model, layers = runs.model, runs.model.attention_layers
    clean = runs.cache("clean", [_point(layer, part) for layer in layers])
    before = runs.cache("corrupted", [_point(layer, "z") for layer in layers])
    recorded: dict[str, Float[Tensor, "1 head d_head"]] = {}
    hooks = list(runs.corrupted.hooks)
    for layer in layers:
        point, outputs = _point(layer, part), _point(layer, "z")
        hooks.append((point, Replacement(clean[point])))
        hooks.append((outputs, LastRowRecorder(outputs, recorded, before[outputs])))
    with model.hooks(hooks):
        model(**runs.inputs("corrupted"), logits_to_keep=1)
    return {layer: recorded[_point(layer, "z")][0] for layer in layers}


def _point(layer: int, part: str) -> str:
    return f"blocks.{layer}.{OF_HEADS[part]}"
