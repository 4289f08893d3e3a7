"""`model.cfg`: the configuration that TransformerLens' helpers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class LensConfig:
    """The shape of a language model, by TransformerLens' names.

    Attributes:
        model_name: its name or folder.
        n_layers, n_heads, n_key_value_heads: layers, query heads, and key heads; None if they differ
            between layers.
        d_head, d_model, d_vocab: widths of a head, of the residual stream, and of the logits.
        d_mlp: width of a dense feed-forward part; None if there is none.
        n_ctx: longest sequence in the configuration; None if it gives none.
        act_fn: activation of the feed-forward part.
        normalization_type: "RMS" or "LN"; None if the final norm is of another kind.
        eps: the number that norms add to the mean of squares.
        device, dtype: of the model.
        use_attn_result: `run_with_cache` without a filter also caches `hook_result`.
        attn_only, final_rms, use_attn_in, use_split_qkv_input: as TransformerLens' helpers expect.
    """

    model_name: str
    n_layers: int
    n_heads: int
    n_key_value_heads: int | None
    d_head: int | None
    d_model: int
    d_vocab: int
    d_mlp: int | None
    n_ctx: int | None
    act_fn: str | None
    normalization_type: str | None
    eps: float | None
    device: torch.device
    dtype: torch.dtype
    use_attn_result: bool = False
    attn_only: bool = False
    final_rms: bool = False
    use_attn_in: bool = False
    use_split_qkv_input: bool = False


def config_of(name: str, n_layers: int, hf_model: Any, device: torch.device) -> LensConfig:
    """The configuration of a model's decoder; the kind of the norm is set when it is known."""
    config: Any = hf_model.config.get_text_config(decoder=True)

    varying: set[str] = set()

    def first(*names: str) -> Any:
        for name in names:
            try:
                value = getattr(config, name, None)
            except RuntimeError:  # transformers': it differs from layer to layer
                varying.add(name)
                return None
            if value is not None:
                return value
        return None

    n_heads, n_key_value_heads = first("num_attention_heads"), first("num_key_value_heads")
    d_head, d_model = first("head_dim"), int(first("hidden_size"))
    if n_key_value_heads is None and "num_key_value_heads" not in varying:
        n_key_value_heads = n_heads
    if d_head is None and "head_dim" not in varying:
        d_head = d_model // n_heads
    activation = first("hidden_activation", "hidden_act", "activation_function")
    return LensConfig(
        model_name=name,
        n_layers=n_layers,
        n_heads=n_heads,
        n_key_value_heads=n_key_value_heads,
        d_head=d_head,
        d_model=d_model,
        d_vocab=d_vocab_of(hf_model),
        d_mlp=first("intermediate_size", "ffn_dim"),
        n_ctx=first("max_position_embeddings"),
        act_fn=None if activation is None else str(activation),
        normalization_type=None,
        eps=first("rms_norm_eps", "layer_norm_eps", "norm_eps"),
        device=device,
        dtype=hf_model.dtype,
    )


def d_vocab_of(hf_model: Any) -> int:
    """The current width of the logits; embeddings can be resized."""
    head = hf_model.get_output_embeddings()
    config = hf_model.config.get_text_config(decoder=True)
    return int(config.vocab_size if head is None else head.weight.shape[0])
