"""Limits on pictures and on the length of prompts, checked before the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rvelens.seam.arguments import ModelInputs

# A side, pixels in all, and how many times the longer side may exceed the shorter one. Processors scale
# the shorter side up, so that a thin strip would take gigabytes.
LONGEST_SIDE = 32_768
_MOST_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs
MOST_STRETCHED = 200


class UnaskableError(ValueError):
    """A question that cannot be asked because of its picture or its text; the run can continue."""


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise UnaskableError for a picture that is empty, too large or too thin.

    Args:
        size: width and height in pixels.
        name: the name of the picture in the error.
    """
    longer, shorter = max(size), min(size)
    if shorter < 1 or longer > LONGEST_SIDE or size[0] * size[1] > _MOST_PIXELS:
        raise UnaskableError(
            f"{name} has {size[0]} x {size[1]} pixels: expected 1 to {LONGEST_SIDE} on each side and "
            f"at most {_MOST_PIXELS} in all; scale it down."
        )
    if longer > MOST_STRETCHED * shorter:
        raise UnaskableError(
            f"{name} has {size[0]} x {size[1]} pixels: expected the longer side to be at most "
            f"{MOST_STRETCHED} times the shorter; crop it."
        )


def n_positions(config: Any) -> int | None:
    """The number of positions that a model supports, scaled ones included; None without a limit.

    Args:
        config: the model's configuration in transformers.
    """
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # By kind of layer in some models (Gemma 3).
    kinds = [part for part in scaling.values() if isinstance(part, Mapping)] or [scaling]
    for part in kinds:
        if part.get("rope_type", part.get("type")) in ("linear", "dynamic", "yarn", "longrope"):
            base = part.get("original_max_position_embeddings") or limit
            limit = max(limit, int(base * (part.get("factor") or 1)))
    return limit


def check_length(config: Any, inputs: ModelInputs, n_new: int = 0) -> None:
    """Raise UnaskableError if a prompt and its new tokens exceed the model's positions.

    Args:
        config: the model's configuration in transformers.
        inputs: inputs of the model, with input_ids or attention_mask [batch key].
        n_new: the maximum number of tokens to generate.
    """
    mask = inputs.get("attention_mask")
    longest = inputs["input_ids"].shape[1] if mask is None else int(mask.sum(dim=1).max())
    limit = n_positions(config)
    if limit is not None and longest + n_new > limit:
        more = f" and {n_new} to generate" if n_new else ""
        raise UnaskableError(
            f"a prompt has {longest} tokens{more}, and the model {limit} positions: expected no "
            "more tokens than positions; shorten the question, or reduce max_new_tokens."
        )
    question_mask = inputs.get("qformer_attention_mask")
    if question_mask is not None:
        limit = config.qformer_config.max_position_embeddings
        longest = int(question_mask.sum(dim=1).max())
        if longest > limit:
            raise UnaskableError(
                f"a question has {longest} tokens, and the Q-Former {limit} positions: expected no "
                "more tokens than positions; shorten the question."
            )


def reserved_texts(processor: Any) -> list[str]:
    """Texts such as `<image>` that have a special meaning in prompts, and are refused in questions.

    Args:
        processor: the model's processor, of transformers.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    special = [*getattr(tokenizer, "all_special_tokens", ())]
    added = getattr(tokenizer, "get_added_vocab", dict)()
    special += [text for text in added if any(word in text for word in ("image", "img", "video"))]
    names = ("image_token", "video_token", "boi_token", "eoi_token")
    special += [str(getattr(processor, name, None) or "") for name in names]  # or an AddedToken
    return sorted(
        {text for text in special if len(text) > 2 and text[0] in "<[" and text[-1] in ">]"}
    )


def check_questions(questions: Sequence[str], processor: Any) -> None:
    """Raise UnaskableError if a question contains one of `reserved_texts`."""
    reserved = reserved_texts(processor)
    for question in questions:
        reserved_word = next((text for text in reserved if text in question), None)
        if reserved_word is not None:
            raise UnaskableError(
                f"a question holds {reserved_word!r}, a special token of the model: expected text "
                "without special tokens; remove it."
            )
