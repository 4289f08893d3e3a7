"""Patches at any position, one at a time or several together, in whole forwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.patch import PositionPatch
from rvelens.patching.effects import Effects
from rvelens.patching.runs import RunPair

# Of the residual stream and of what is added to it; each is [batch position d_model] in every layer.
POINTS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


@refuse_wrong_types
def patch_positions(
    runs: RunPair, point: str = "hook_resid_pre", *, batch_size: int = 8
) -> Effects:
    """The effect of each position in each layer, with one vector of the clean run.

    Args:
        runs: of `pair_runs`.
        point: one of `POINTS`: the residual stream before, between and after the branches of a block,
            the output of its attention, or the output of its MLP.
        batch_size: the number of patches per forward. If the corrupted run has hooks, they run one by
            one.

    Returns:
        effects [layer position], with the text of each token.

    Raises:
        ValueError: another point, or a point that this model cannot show exactly.
    """
    layers = _layers_with(runs, point)
    n = runs.tokens.n_keys
    patches = [(layer, torch.tensor([position])) for layer in layers for position in range(n)]
    effects = _run(runs, point, patches, batch_size)
    values = torch.full((runs.model.n_layers, n), torch.nan)
    values[layers] = effects.reshape(len(layers), n)
    texts = runs.model.to_str_tokens(runs.inputs("corrupted")["input_ids"])
    return Effects(point, ("layer", "position"), values, tuple(map(str, texts)))


@refuse_wrong_types
def patch_tokens(
    runs: RunPair,
    positions: Bool[Tensor, " position"],
    point: str = "hook_resid_pre",
    *,
    batch_size: int = 8,
) -> Effects:
    """The effect of patching several positions together, by layer.

    Qwen3-VL also adds image features to the residual stream between its first layers. A patch before
    these layers keeps the features of the corrupted image there. So a patch of all image tokens before
    layer 0 need not have the effect 1.

    Args:
        runs: of `pair_runs`.
        positions: the positions to patch; `runs.image_positions(region)` gives those of the image.
        point, batch_size: as in `patch_positions`.

    Returns:
        effects [layer].

    Raises:
        ValueError: an error of `patch_positions`, a mask of another length, or no position.
    """
    layers = _layers_with(runs, point)
    if len(positions) != runs.tokens.n_keys or not bool(positions.any()):
        raise ValueError(
            f"{int(positions.sum())} of {len(positions)} positions for prompts of "
            f"{runs.tokens.n_keys} tokens: expected at least one, and an entry for each token; make "
            "them with runs.image_positions."
        )
    chosen = positions.nonzero().flatten()
    effects = _run(runs, point, [(layer, chosen) for layer in layers], batch_size)
    values = torch.full((runs.model.n_layers,), torch.nan)
    values[layers] = effects
    return Effects(point, ("layer",), values)


def _layers_with(runs: RunPair, point: str) -> list[int]:
    if point not in POINTS:
        raise ValueError(
            f"point={point!r}: expected one of {', '.join(POINTS)}; use patch_heads for parts of heads."
        )
    model = runs.model
    return list(model.attention_layers if point == "hook_attn_out" else range(model.n_layers))


@torch.no_grad()
def _run(
    runs: RunPair,
    point: str,
    patches: Sequence[tuple[int, Int[Tensor, " patched"]]],
    batch_size: int,
) -> Float[Tensor, " patch"]:
    """Effects of patches, each of some positions in one layer, as samples of batches."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1; pass a larger number.")
    model = runs.model
    layers = sorted({layer for layer, _ in patches})
    clean = runs.cache("clean", [_name(layer, point) for layer in layers])
    # Hooks may be made for a batch of one.
    width = min(1 if runs.corrupted.hooks else batch_size, len(patches))
    inputs, logits = runs.inputs("corrupted", width), []
    for start in range(0, len(patches), width):
        together = patches[start : start + width]
        by_layer: dict[int, dict[int, Int[Tensor, " patched"]]] = defaultdict(dict)
        for sample, (layer, positions) in enumerate(together):
            by_layer[layer][sample] = positions
        hooks = list(runs.corrupted.hooks)
        for layer, samples in by_layer.items():
            name = _name(layer, point)
            hooks.append((name, PositionPatch(clean[name], samples)))
        with model.hooks(hooks):
            logits.append(model(**inputs, logits_to_keep=1)[: len(together), -1])
    return runs.effect(torch.cat(logits))


def _name(layer: int, point: str) -> str:
    return f"blocks.{layer}.{point}"
