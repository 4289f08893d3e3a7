"""What an original LLaVA checkpoint's configuration and tokenizer mean to transformers' LLaVA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AddedToken,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from rvelens.convert.shards import read_object
from rvelens.files.atomic import one_line

# Rows of the vocabulary are padded to a multiple of this, as in transformers' own LLaVA weights.
VOCAB_MULTIPLE = 64

_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
    "head_dim",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
)
_VISION_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "projection_dim",
)
# What the conversion relies on: the only values of these keys that transformers' LLaVA computes.
_FIXED = {
    "model_type": ("share4v", "llava", "llava_llama"),
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", None),
    "mm_use_im_start_end": (False, None),
    "image_aspect_ratio": ("pad", "square", None),
    "tie_word_embeddings": (False, None),
}


def check_config(raw: dict[str, Any], src: Path) -> None:
    """Raise ValueError for a config.json that is not of an original LLaVA with an MLP projector."""
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if not isinstance(raw.get(key), int) or raw[key] < 1:
            raise ValueError(
                f"{key} is {raw.get(key)!r} in {src / 'config.json'}: expected a number, as in an "
                "original LLaVA checkpoint; pass the folder of such a checkpoint."
            )
    if not isinstance(raw.get("mm_vision_select_layer", -2), int):
        raise ValueError(
            f"mm_vision_select_layer is {raw['mm_vision_select_layer']!r} in "
            f"{src / 'config.json'}: expected the number of one layer, such as -2; correct the "
            "file."
        )
    for key, allowed in _FIXED.items():
        if raw.get(key) not in allowed:
            raise ValueError(
                f"{key} is {raw.get(key)!r} in {src / 'config.json'}: expected "
                f"{' or '.join(repr(value) for value in allowed if value is not None)}, the only "
                "value that transformers' LLaVA computes; convert another checkpoint."
            )


def read_vision_config(tower: Path | None, file: str | Path | None) -> CLIPVisionConfig:
    """The tower's configuration; its shapes are checked against the weights later.

    Raises:
        ValueError: an unreadable file, or one of another kind of tower.
    """
    of_tower = (
        None if tower is None else (tower if tower.is_dir() else tower.parent) / "config.json"
    )
    path = Path(file) if file is not None else of_tower
    if path is None or (file is None and not path.is_file()):
        return LlavaConfig().vision_config  # type: ignore[return-value]  # CLIP ViT-L/14, 336 px
    raw = read_object(path)
    raw = raw.get("vision_config", raw)
    model_types = ("clip", "clip_vision_model")
    if not isinstance(raw, dict) or raw.get("model_type", model_types[0]) not in model_types:
        raise ValueError(
            f"{path} configures no CLIP tower: expected model_type {model_types[1]!r}; pass "
            "the folder of a CLIP tower."
        )
    return _strict(CLIPVisionConfig, {key: raw[key] for key in _VISION_KEYS if key in raw}, path)


def _strict(kind: Any, values: dict[str, Any], source: Any) -> Any:
    try:
        return kind(**{key: value for key, value in values.items() if value is not None})
    except (StrictDataclassError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        reason = one_line(error).rstrip(".")
        raise ValueError(
            f"{source} makes no {kind.__name__} ({reason}): expected valid values; correct the "
            "file."
        ) from error


def read_tokenizer(src: Path) -> PreTrainedTokenizerFast:
    """The source's tokenizer with "<image>" and a padding token.

    The original code tokenizes the texts before and after an image apart, so that a space mark
    stands before each; `legacy` splits in the same way, but for a text that starts with a space. There
    the original has a space mark more: " what" becomes "▁", "▁what", and here "▁what". No preset of a
    LLaVA has a space behind its image; a template with "{image} {question}" does. It is kept as a
    plain tokenizer.json, since LlamaTokenizer of transformers 5.23 does not save `legacy`.

    Raises:
        ValueError: no tokenizer in the folder.
    """
    try:
        # The configuration given keeps transformers from the source's own, of an unknown type.
        original = AutoTokenizer.from_pretrained(src, config=LlamaConfig(), legacy=True)
        backend = original.backend_tokenizer
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        reason = one_line(error)[:100]
        raise ValueError(
            f"no tokenizer in {src} ({reason}): expected tokenizer.model or tokenizer.json with "
            "tokenizer_config.json; download these files too."
        ) from error
    special = {key: getattr(original, key) for key in ("bos_token", "eos_token", "unk_token")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=original.pad_token, padding_side="left", **special
    )
    image = AddedToken("<image>", special=True, normalized=False)
    tokenizer.add_tokens([image], special_tokens=True)  # type: ignore[list-item]  # both serve
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def llava_config(
    raw: dict[str, Any], vision: CLIPVisionConfig, tokenizer: PreTrainedTokenizerFast
) -> LlavaConfig:
    """The configuration of the converted model, its vocabulary grown by what the tokenizer adds.

    Raises:
        ValueError: numbers that make no Llama.
    """
    n_vocab = max(raw["vocab_size"], len(tokenizer))
    values = {key: raw[key] for key in _TEXT_KEYS if key in raw}
    values["vocab_size"] = -(-n_vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    values["pad_token_id"] = tokenizer.pad_token_id
    return LlavaConfig(
        text_config=_strict(LlamaConfig, values, "config.json"),
        vision_config=vision,
        image_token_index=int(tokenizer.convert_tokens_to_ids("<image>")),  # type: ignore[arg-type]
        image_seq_length=(int(vision.image_size) // int(vision.patch_size)) ** 2,  # type: ignore[arg-type]
        projector_hidden_act="gelu",
        vision_feature_layer=int(raw.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default",
        architectures=["LlavaForConditionalGeneration"],
    )


def llava_processor(
    config: LlavaConfig, tokenizer: PreTrainedTokenizerFast, raw: dict[str, Any]
) -> LlavaProcessor:
    """CLIP's mean and deviation; "pad" fills up to a square first, else the middle is cut out."""
    vision: Any = config.vision_config
    side = int(vision.image_size)
    images = LlavaImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_pad=raw.get("image_aspect_ratio") == "pad",
    )
    patch = int(vision.patch_size)
    return LlavaProcessor(images, tokenizer, patch, "default", num_additional_image_tokens=1)
