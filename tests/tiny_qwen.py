"""Tiny Qwen-VL models."""

from __future__ import annotations

from typing import Any

import transformers as tf
from tiny_inputs import TEXT, VOCAB, tokenizer, without_video
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


def _qwen_tokens() -> dict[str, int]:
    names = {"image": "image_pad", "video": "video_pad"}
    names |= {"vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{key}_token_id": VOCAB[f"<|{name}|>"] for key, name in names.items()}


def _qwen_images(patch: int) -> Qwen2VLImageProcessorPil:
    size = {"shortest_edge": 4 * 256, "longest_edge": 12 * 256}
    return Qwen2VLImageProcessorPil(size=size, patch_size=patch)


def qwen2_vl() -> tuple[Any, Any]:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "patch_size": 8}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    text = tf.Qwen2Config(**TEXT).to_dict() | {
        "rope_parameters": rope,
        "model_type": "qwen2_vl_text",
    }
    config = tf.Qwen2VLConfig(vision_config=vision, text_config=text, **_qwen_tokens())
    processor = without_video(tf.Qwen2VLProcessor)(_qwen_images(8), tokenizer(), None)
    return tf.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "patch_size": 8,
        "window_size": 32,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    text = TEXT | {"rope_parameters": rope}
    config = tf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **_qwen_tokens())
    processor = without_video(tf.Qwen2_5_VLProcessor)(_qwen_images(8), tokenizer(), None)
    return tf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 4,
        "patch_size": 8,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = TEXT | {"rope_parameters": rope}
    config = tf.Qwen3VLConfig(vision_config=vision, text_config=text, **_qwen_tokens())
    processor = without_video(tf.Qwen3VLProcessor)(_qwen_images(8), tokenizer(), None)
    return tf.Qwen3VLForConditionalGeneration(config), processor
