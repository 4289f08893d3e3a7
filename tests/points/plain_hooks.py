"""Where hook points are in the tiny models, written down by the names of their modules.

Nothing of rvelens is used: a plain torch hook on a copy that is not wrapped reads or edits the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Edit = Callable[[Tensor], Tensor]
NAME = "points_reference"
MID = ("pre_feedforward_layernorm", "post_attention_layernorm", "ffn_norm", "layer_norm2", "norm2")
STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
HEADS = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z")
FUNCTION = ("attn.hook_rot_q", "attn.hook_rot_k")


def child(module: nn.Module, *names: str) -> nn.Module:
    """The first of these modules that there is."""
    return next(getattr(module, name) for name in names if hasattr(module, name))


def decoder_blocks(hf_model: Any) -> Any:
    """The blocks of the language model."""
    return hf_model.get_decoder().layers


def halved(x: Tensor) -> Tensor:
    """The edit of every test: the first half of the last axis, at half its size."""
    x = x.clone()
    x[..., : x.shape[-1] // 2] *= 0.5
    return x


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_first(output: Any, x: Tensor) -> Any:
    return (x, *output[1:]) if isinstance(output, tuple) else x


def on_output(module: nn.Module, edit: Edit) -> Any:
    """A torch hook that edits what a module returns."""
    # First of all: transformers keeps hidden states in a hook of its own.
    return module.register_forward_hook(
        lambda m, a, o: _with_first(o, edit(_first(o))), prepend=True
    )


def on_input(module: nn.Module, edit: Edit) -> Any:
    """A torch hook that edits the hidden states that a module gets."""

    def hook(m: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def by_head(edit: Edit, n: int, part: slice = slice(None)) -> Edit:
    """An edit of heads, of a projection or of a part of a fused one."""

    def flat(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., part] = edit(x[..., part].unflatten(-1, (n, -1))).flatten(-2)
        return x

    return flat


class Places:
    """Puts an edit where a point of a block is."""

    def __init__(self, block: nn.Module, n_heads: int, n_kv: int) -> None:
        self.block, self.n = block, {"q": n_heads, "k": n_kv, "v": n_kv, "z": n_heads}
        self.attention = child(block, "self_attn", "attention", "attn")

    def put(self, name: str, edit: Edit) -> list[Any]:
        """Handles of the torch hooks that edit a point."""
        gemma = hasattr(self.block, "pre_feedforward_layernorm")
        attn = self.block.post_attention_layernorm if gemma else self.attention
        mlp = self.block.post_feedforward_layernorm if gemma else child(self.block, "mlp")
        if name == "hook_resid_mid":
            seen: list[Tensor] = []
            first = self.block.register_forward_pre_hook(
                lambda m, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
            )
            # What attention adds makes the edited stream; rounding apart.
            return [first, on_output(attn, lambda a: edit(seen[-1] + a) - seen[-1])]
        module: Any = {
            "hook_resid_post": self.block,
            "hook_attn_out": attn,
            "hook_mlp_out": mlp,
        }.get(name)
        if module is not None:
            return [on_output(module, edit)]
        if name == "hook_resid_pre":
            return [on_input(self.block, edit)]
        part = name[-1]
        if part == "z":
            out = child(
                self.attention, "o_proj", "out_proj", "projection", "proj", "projection_layer"
            )
            return [on_input(out, by_head(edit, self.n["z"]))]
        if hasattr(self.attention, "qkv"):
            width = self.attention.qkv.out_features // 3
            start = "qkv".index(part) * width
            return [
                on_output(
                    self.attention.qkv, by_head(edit, self.n["q"], slice(start, start + width))
                )
            ]
        return [on_output(getattr(self.attention, f"{part}_proj"), by_head(edit, self.n[part]))]


@contextmanager
def edited_function(hf_model: Any, layer: int, name: str, edit: Edit) -> Iterator[None]:
    """SDPA, in one layer of the decoder with other queries or keys."""
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def function(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        if module.layer_idx == layer:
            query = edit(query.transpose(1, 2)).transpose(1, 2) if name.endswith("q") else query
            key = edit(key.transpose(1, 2)).transpose(1, 2) if name.endswith("k") else key
        return sdpa(module, query, key, *args, **kwargs)

    AttentionInterface.register(NAME, function)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    hf_model.get_decoder().set_attn_implementation(NAME)
    try:
        yield
    finally:
        hf_model.get_decoder().set_attn_implementation("sdpa")


@contextmanager
def edited(hf_model: Any, layer: int, name: str, edit: Edit) -> Iterator[None]:
    """The decoder of a plain model with one point of one layer edited."""
    if name in FUNCTION:
        with edited_function(hf_model, layer, name, edit):
            yield
        return
    config = hf_model.config.get_text_config(decoder=True)
    places = Places(
        decoder_blocks(hf_model)[layer], config.num_attention_heads, config.num_key_value_heads
    )
    handles = places.put(name, edit)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tower_blocks(hf_model: Any) -> Any:
    """The blocks of the vision tower."""
    tower = hf_model.get_encoder(modality="image")
    for path in ("encoder.layers", "blocks", "encoder.layer"):
        with suppress(AttributeError):
            return tower.get_submodule(path)
    raise AssertionError(type(tower))


def recording(kept: list[Tensor]) -> Edit:
    """An edit that keeps what it is given and leaves it."""

    def keep(x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            x.retain_grad()
        kept.append(x)
        return x

    return keep
