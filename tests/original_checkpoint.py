"""A tiny LLaVA written in the original LLaVA format, tensor by tensor, by the tests' own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import build
from torch import Tensor

# The original vocabulary: the tiny model's, without the rows that conversion adds.
N_ROWS = 94
TOWER = "model.vision_tower.vision_tower.vision_model."


def original_name(name: str) -> str:
    """The name in an original checkpoint of a tensor of LlavaForConditionalGeneration."""
    if name.startswith("model.vision_tower."):
        return TOWER + name[len("model.vision_tower.") :]
    if name.startswith("model.multi_modal_projector."):
        layer = {"linear_1": "0", "linear_2": "2"}[name.split(".")[2]]
        return f"model.mm_projector.{layer}.{name.split('.')[3]}"
    if name.startswith("model.language_model."):
        return "model." + name[len("model.language_model.") :]
    assert name == "lm_head.weight", name
    return name


def original_tensors() -> dict[str, Tensor]:
    """The tiny LLaVA's weights, and the buffers that original checkpoints hold beside them."""
    hf_model, _ = build("llava")
    tensors = {original_name(name): tensor for name, tensor in hf_model.state_dict().items()}
    for layer in range(3):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors[TOWER + "embeddings.position_ids"] = torch.arange(17)[None]
    return tensors


def original_config() -> dict[str, Any]:
    return {
        "model_type": "share4v",
        "architectures": ["Share4VLlamaForCausalLM"],
        "vocab_size": N_ROWS,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 32,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "somewhere/vit-tiny",
    }


VISION_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": 32,
    "hidden_act": "quick_gelu",
}


def write_shards(folder: Path, tensors: dict[str, Tensor], kind: str, n_shards: int) -> None:
    """Deal the tensors out to shards with an index, as .bin or .safetensors."""
    stem = "pytorch_model" if kind == "bin" else "model"
    names = list(tensors)
    weight_map = {}
    for number in range(n_shards):
        file = f"{stem}-{number + 1:05}-of-{n_shards:05}.{kind}"
        part = {name: tensors[name].clone() for name in names[number::n_shards]}
        if kind == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))


def write_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor] | None = None,
    *,
    kind: str = "bin",
    n_shards: int = 2,
    **config: Any,
) -> Path:
    """An original checkpoint folder: configuration, tokenizer, shards, and the tower's config."""
    folder.mkdir(parents=True)
    build("llava")[1].tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(original_config() | config))
    (folder / "vision.json").write_text(json.dumps(VISION_CONFIG))
    write_shards(folder, original_tensors() if tensors is None else tensors, kind, n_shards)
    return folder
