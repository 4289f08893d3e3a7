"""Tiny random vision-language models whose decoders are of other kinds than in `tiny_models`.

Each builder returns a model and the inputs of two prompts of equal length with one image each. The
pixels are random numbers of the shape that the model's own processor would return.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as tf
from tiny_inputs import N_VOCAB, SPECIAL_IDS, TEXT, VISION, VOCAB

__all__ = ["DECODERS", "N_IMAGE", "build", "implementation"]

Built = tuple[Any, dict[str, torch.Tensor]]

N_IMAGE = 16  # Image tokens in every prompt.
N_BEFORE, N_AFTER = 7, 16  # Words before and after the image.
IMAGE, VIDEO = VOCAB["<|image_pad|>"], VOCAB["<|video_pad|>"]
START, END = VOCAB["<|vision_start|>"], VOCAB["<|vision_end|>"]
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
# Both images have 8 x 8 patches, which are merged 2 x 2 into the image tokens.
GRID_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 4,
    "patch_size": 8,
    "out_hidden_size": 64,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0}
MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}


def _layer_types(*kinds: str) -> list[str]:
    """The names that configurations give to kinds of attention."""
    return [f"{kind}_attention" for kind in kinds]


def _random(*shape: int) -> torch.Tensor:
    """Random pixels."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _prompts(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Token ids and attention mask of two prompts, with the inputs that are given."""
    generator = torch.Generator().manual_seed(5)
    words = torch.randint(
        len(SPECIAL_IDS), len(VOCAB), (2, N_BEFORE + N_AFTER), generator=generator
    )
    row = torch.tensor([START, *[IMAGE] * N_IMAGE, END]).expand(2, -1)
    ids = torch.cat([words[:, :N_BEFORE], row, words[:, N_BEFORE:]], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


def _grid_inputs() -> dict[str, torch.Tensor]:
    """Inputs of the models that read Qwen's flat patches and a grid for each image."""
    inputs = _prompts(
        pixel_values=_random(2 * 64, 3 * 2 * 8 * 8), image_grid_thw=torch.tensor([[1, 8, 8]] * 2)
    )
    return inputs | {"mm_token_type_ids": (inputs["input_ids"] == IMAGE).int()}


def _square_inputs(side: int, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of the models that read square pictures."""
    return _prompts(pixel_values=_random(2, 3, side, side), **more)


def _qwen3_5_text() -> dict[str, Any]:
    """Gated delta nets around two layers of gated softmax attention."""
    return TEXT | {
        "num_hidden_layers": 5,
        "layer_types": _layer_types("linear", "full", "linear", "full", "linear"),
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "rope_parameters": MROPE
        | {"mrope_section": [2, 1, 1], "mrope_interleaved": True, "partial_rotary_factor": 1.0},
    }


def qwen3_5() -> Built:
    """Hybrid: attention in layers 1 and 3, gated delta nets elsewhere."""
    vision = GRID_VISION | {"num_position_embeddings": 16}
    config = tf.Qwen3_5Config(vision_config=vision, text_config=_qwen3_5_text(), **QWEN_TOKENS)
    return tf.Qwen3_5ForConditionalGeneration(config), _grid_inputs()


def minicpmv4_6() -> Built:
    """Hybrid: the decoder of Qwen3.5 under another vision wrapper."""
    config = tf.MiniCPMV4_6Config(
        vision_config=VISION | {"image_size": 128},
        text_config=tf.Qwen3_5TextConfig(**_qwen3_5_text()),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        insert_layer_id=0,
        image_size=128,
    )
    # 16 x 16 patches of each image, packed along the last dimension and merged 4 x 4.
    inputs = _prompts(
        pixel_values=_random(1, 3, 8, 2 * 256 * 8), target_sizes=torch.tensor([[16, 16]] * 2)
    )
    return tf.MiniCPMV4_6ForConditionalGeneration(config), inputs


def nemotron_h_omni() -> Built:
    """Hybrid: layers of one mixer each, of which 2 and 5 are attention without positions."""
    kinds = ["linear_attention", "mlp", "full_attention", "linear_attention", "moe"]
    text = {key: value for key, value in TEXT.items() if key != "num_hidden_layers"}
    text |= MOE | {
        "layers_block_type": [*kinds, "full_attention"],
        "ssm_state_size": 8,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "chunk_size": 8,
        "n_routed_experts": 4,
        "moe_shared_expert_intermediate_size": 32,
    }
    vision = tf.RadioConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_ratio=1.0,
        patch_size=8,
        image_size=64,
        max_img_size=128,
        video_temporal_patch_size=2,
        dtype="float32",
    )
    config = tf.NemotronH_Omni_Reasoning_V3_Config(
        vision_config=vision,
        text_config=tf.NemotronHConfig(**text),
        vision_hidden_size=32,
        projector_hidden_size=64,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )
    inputs = _prompts(
        pixel_values=_random(2 * 64, 3 * 8 * 8), image_grid_hw=torch.tensor([[8, 8]] * 2)
    )
    return tf.NemotronH_Omni_Reasoning_V3(config), inputs


def lfm2_vl() -> Built:
    """Hybrid: attention in layers 1 and 3, short convolutions elsewhere."""
    text = TEXT | {
        "num_hidden_layers": 5,
        "layer_types": ["conv", "full_attention", "conv", "full_attention", "conv"],
        "block_auto_adjust_ff_dim": False,
        "tie_word_embeddings": False,
    }
    config = tf.Lfm2VlConfig(
        vision_config=tf.Siglip2VisionConfig(**VISION, num_patches=16, vision_use_head=False),
        text_config=tf.Lfm2Config(**text),
        image_token_id=IMAGE,
        projector_hidden_size=64,
        tie_word_embeddings=False,
    )
    inputs = _prompts(
        pixel_values=_random(2, 64, 3 * 8 * 8),
        spatial_shapes=torch.tensor([[8, 8]] * 2),
        pixel_attention_mask=torch.ones(2, 64, dtype=torch.long),
    )
    return tf.Lfm2VlForConditionalGeneration(config), inputs


def minimax_m3_vl() -> Built:
    """Sparse mask: in layers 1 and 2 each key head sees 3 blocks of 4 keys, and experts."""
    text = TEXT | {
        "num_hidden_layers": 4,
        "intermediate_size": 32,
        "dense_intermediate_size": 64,
        "shared_intermediate_size": 32,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "rotary_dim": 4,
        "rope_parameters": MROPE | {"partial_rotary_factor": 0.5},
        "layer_types": ["full_attention", *["minimax_m3_sparse"] * 2, "full_attention"],
        "mlp_layer_types": ["dense", *["sparse"] * 3],
        "index_n_heads": 4,
        "index_head_dim": 8,
        "index_block_size": 4,
        "index_topk_blocks": 3,
        "index_local_blocks": 1,
    }
    vision = VISION | {"hidden_size": 64, "image_size": 64}
    config = tf.MiniMaxM3VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        projector_hidden_size=64,
    )
    inputs = _grid_inputs()
    del inputs["mm_token_type_ids"]
    return tf.MiniMaxM3SparseForConditionalGeneration(config), inputs


def mistral_large4() -> Built:
    """Sparse mask of 8 keys a query, latent keys of which layers 1 and 3 reuse layer 0's."""
    text = TEXT | MOE
    text |= {
        "num_hidden_layers": 4,
        "num_key_value_heads": 8,
        "n_routed_experts": 4,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "index_topk": 8,
        "index_head_dim": 8,
        "index_n_heads": 16,  # With few heads, keys would tie at a score of 0.
        "indexer_types": ["full", "shared", "full", "shared"],
        "no_rope_layers": [1, 1, 0, 1],
        "kv_source_layers": [0, 0, 2, 0],
    }
    config = tf.MistralLarge4Config(
        vision_config=tf.PixtralVisionConfig(**VISION, image_size=64),
        text_config=text,
        image_token_index=IMAGE,
    )
    inputs = _square_inputs(64, image_sizes=torch.tensor([[64, 64]] * 2))
    return tf.MistralLarge4ForConditionalGeneration(config), inputs


def _gemma4(**text: Any) -> Built:
    """Gemma 4 with the text settings that are given."""
    vision = VISION | {"num_key_value_heads": 4, "head_dim": 8, "pooling_kernel_size": 2}
    config = tf.Gemma4Config(
        text_config=TEXT
        | {
            "layer_types": _layer_types("sliding", "full", "sliding", "full"),
            "num_hidden_layers": 4,
            "sliding_window": 20,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": N_VOCAB,
            "tie_word_embeddings": False,
        }
        | text,
        vision_config=vision | {"position_embedding_size": 64},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        boi_token_id=START,
        eoi_token_id=END,
        audio_token_id=VOCAB["<img>"],
        boa_token_id=VOCAB["<img>"],
        eoa_token_index=VOCAB["</img>"],
        tie_word_embeddings=False,
    )
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    places = torch.stack([columns, rows], dim=-1).reshape(1, 64, 2).expand(2, -1, -1)
    inputs = _prompts(
        pixel_values=_random(2, 64, 3 * 8 * 8), image_position_ids=places.contiguous()
    )
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    return tf.Gemma4ForConditionalGeneration(config), inputs


def gemma4() -> Built:
    """Shared keys: layers 2 and 3 read those of layers 0 and 1; windows; per-layer embeddings."""
    return _gemma4(num_kv_shared_layers=2, hidden_size_per_layer_input=8)


def gemma4_moe() -> Built:
    """Keys that serve as values in full layers, images that see themselves, and experts."""
    return _gemma4(
        hidden_size_per_layer_input=0,
        attention_k_eq_v=True,
        num_global_key_value_heads=2,
        use_bidirectional_attention="vision",
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=32,
    )


def qwen3_vl_moe() -> Built:
    """Experts, and image features added in an early layer."""
    text = TEXT | MOE | {"num_experts": 4}
    text |= {"rope_parameters": MROPE | {"mrope_section": [2, 1, 1], "mrope_interleaved": True}}
    vision = GRID_VISION | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = tf.Qwen3VLMoeConfig(vision_config=vision, text_config=text, **QWEN_TOKENS)
    return tf.Qwen3VLMoeForConditionalGeneration(config), _grid_inputs()


def glm4v_moe() -> Built:
    """Experts after a first dense layer, and positions in half of each head."""
    text = TEXT | MOE | {"n_routed_experts": 4}
    text |= {
        "rope_parameters": MROPE | {"mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5},
    }
    config = tf.Glm4vMoeConfig(
        vision_config=GRID_VISION | {"image_size": 64},
        text_config=text,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_start_token_id=START,
        image_end_token_id=END,
        video_start_token_id=VOCAB["<img>"],
        video_end_token_id=VOCAB["</img>"],
    )
    return tf.Glm4vMoeForConditionalGeneration(config), _grid_inputs()


def llama4() -> Built:
    """Experts, attention in chunks of 16 keys, and a last layer without positions."""
    text = TEXT | {
        "num_hidden_layers": 4,
        "intermediate_size_mlp": 64,
        "num_local_experts": 4,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 16,
        "floor_scale": 8,
    }
    vision = VISION | {
        "image_size": 64,
        "intermediate_size": 128,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
    }
    config = tf.Llama4Config(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )
    return tf.Llama4ForConditionalGeneration(config), _square_inputs(64)


def blip_2() -> Built:
    """OPT: an output projection named `out_proj`, and learnt positions."""
    text = tf.OPTConfig(
        vocab_size=N_VOCAB,
        hidden_size=64,
        ffn_dim=64,
        word_embed_proj_dim=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    qformer = {
        "vocab_size": N_VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "cross_attention_frequency": 1,
    }
    config = tf.Blip2Config(
        vision_config=VISION | {"image_size": 32},
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=N_IMAGE,
        image_token_index=IMAGE,
    )
    return tf.Blip2ForConditionalGeneration(config), _square_inputs(32)


def fuyu() -> Built:
    """Persimmon: fused queries, keys and values, an output projection named `dense`."""
    text = tf.PersimmonConfig(
        vocab_size=N_VOCAB,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    config = tf.FuyuConfig(text_config=text, image_token_id=IMAGE, patch_size=8, image_size=32)
    return tf.FuyuForCausalLM(config), _prompts(pixel_values=_random(2, N_IMAGE, 3 * 8 * 8))


def mistral3() -> Built:
    """Sliding windows of 12 keys in every layer."""
    config = tf.Mistral3Config(
        vision_config=tf.PixtralVisionConfig(**VISION, image_size=64),
        text_config=tf.MistralConfig(**TEXT, sliding_window=12),
        image_token_index=IMAGE,
        tie_word_embeddings=False,
    )
    inputs = _square_inputs(64, image_sizes=torch.tensor([[64, 64]] * 2))
    return tf.Mistral3ForConditionalGeneration(config), inputs


def _cohere2_text() -> tf.Cohere2Config:
    """Sliding windows of 12 keys except in layer 2, which has no positions."""
    text = TEXT | {
        "num_hidden_layers": 4,
        "layer_types": _layer_types("sliding", "sliding", "full", "sliding"),
        "sliding_window": 12,
    }
    return tf.Cohere2Config(**text, logit_scale=1.0, tie_word_embeddings=False)


def cohere2_vision() -> Built:
    """Sliding windows in layers whose attention and feed-forward parts run side by side."""
    config = tf.Cohere2VisionConfig(
        vision_config=tf.SiglipVisionConfig(**VISION, image_size=64, vision_use_head=False),
        text_config=_cohere2_text(),
        image_token_id=IMAGE,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    return tf.Cohere2VisionForConditionalGeneration(config), _square_inputs(64)


def aya_vision() -> Built:
    """The decoder of Cohere 2 under another vision wrapper."""
    config = tf.AyaVisionConfig(
        vision_config=tf.SiglipVisionConfig(**VISION, image_size=64, vision_use_head=False),
        text_config=_cohere2_text(),
        image_token_index=IMAGE,
        tie_word_embeddings=False,
    )
    return tf.AyaVisionForConditionalGeneration(config), _square_inputs(64)


DECODERS: dict[str, Callable[[], Built]] = {
    "qwen3_5": qwen3_5,
    "minicpmv4_6": minicpmv4_6,
    "nemotron_h_omni": nemotron_h_omni,
    "lfm2_vl": lfm2_vl,
    "minimax_m3_vl": minimax_m3_vl,
    "mistral_large4": mistral_large4,
    "gemma4": gemma4,
    "gemma4_moe": gemma4_moe,
    "qwen3_vl_moe": qwen3_vl_moe,
    "glm4v_moe": glm4v_moe,
    "llama4": llama4,
    "blip_2": blip_2,
    "fuyu": fuyu,
    "mistral3": mistral3,
    "cohere2_vision": cohere2_vision,
    "aya_vision": aya_vision,
}


@torch.no_grad()
def _draw_weights(model: torch.nn.Module) -> None:
    """Weights under which attention scores have a spread of a few units."""
    generator = torch.Generator().manual_seed(7)
    unscaled = model.config.model_type == "gemma4"  # Its scores are not divided by anything.
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            # The experts of a layer are slices of one tensor.
            fan_in = weight.shape[-1] if "experts." in name else weight[0].numel()
            weight.normal_(0, 1.4 * fan_in**-0.5, generator=generator)
        elif name.endswith(("q_norm.weight", "q_layernorm.weight")) and not unscaled:
            weight.add_(1)  # Normalised queries would have scores of unit spread.
        elif name.endswith("linear_attn.A_log"):
            # A delta net that forgets at once would divide by a single, perhaps tiny, score.
            weight.fill_(-3)


@cache
def _built(name: str) -> Built:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # Some classes draw vectors as they are made.
        model, inputs = DECODERS[name]()
    _draw_weights(model)
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        model.set_attn_implementation("eager")
    for part in model.modules():
        if getattr(part, "generation_config", None) is not None:
            part.generation_config.eos_token_id = None  # Every generation runs to its full length.
            part.generation_config.pad_token_id = 0
            # A generated image token would want an image when the sequence is run again.
            part.generation_config.suppress_tokens = SPECIAL_IDS
    return model.eval(), inputs


def build(name: str) -> Built:
    """A fresh copy of a tiny model, under SDPA where it can be, and inputs of two prompts."""
    return copy.deepcopy(_built(name))


def implementation(model: Any) -> str:
    """The attention implementation that a model's decoder runs."""
    return model.get_decoder().config._attn_implementation
