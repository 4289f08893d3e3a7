"""PAI's guidance (Liu et al. 2024): the second branch reads the prompt without its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.strengths import STRONGEST
from rvelens.interventions.contrast import ContrastProcessor
from rvelens.model.hooked_lvlm import HookedLVLM


def text_negative(inputs: Mapping[str, Any], image_token_id: int) -> dict[str, Any]:
    """The same prompts without image tokens and pixels, left-padded.

    Text that a prompt has around its image ("<vision_start>") stays.
    """
    ids = inputs["input_ids"]
    keep = (ids != image_token_id) & inputs["attention_mask"].bool()
    width = int(keep.sum(dim=1).max())
    # What goes is sorted to the left, where it becomes padding.
    order = keep.int().argsort(dim=1, stable=True)[:, -width:]
    kept = keep.gather(1, order)
    negative = {
        "input_ids": ids.gather(1, order).masked_fill(~kept, 0),
        "attention_mask": kept.to(ids.dtype),
        # Qwen-VL would count on from the positions of the branch with an image.
        "position_ids": (kept.cumsum(dim=1) - 1).clamp(min=0),
    }
    if "token_type_ids" in inputs:
        negative["token_type_ids"] = inputs["token_type_ids"].gather(1, order)
    return negative


@refuse_wrong_types
def text_guidance(
    model: HookedLVLM, inputs: Mapping[str, Any], gamma: float = 1.1, beta: float = 0.1
) -> ContrastProcessor:
    """The processor of one generation: gamma log p - (gamma - 1) log p', p' without the image.

    That is the contrast with alpha = gamma - 1: logits differ from log probabilities by a number
    that is the same for all tokens. `pai_hooks` that are on find no image in the second branch and
    edit nothing there, as in the authors' code. Their script also leaves the first token
    unedited in the first branch: `pai_hooks(first_token=False)`.

    Args:
        model: the model that generates.
        inputs: what goes into its generate.
        gamma: strength, at least 1, which is no guidance. The authors' argument parser has 2 as its
            default (https://github.com/LALBJ/PAI/blob/master/pope_eval.py); the commands in their
            README, and this function, take 1.1.
        beta: cutoff (the authors': 0.1).

    Raises:
        ValueError: gamma or beta outside its range.
    """
    check_gamma(gamma)
    return ContrastProcessor(model, text_negative(inputs, model.image_token_id), gamma - 1, beta)


def check_gamma(gamma: float) -> None:
    """Raise ValueError where the guidance is outside its range."""
    if not 1 <= gamma <= STRONGEST:
        raise ValueError(
            f"gamma={gamma}: expected a finite strength from 1 to {STRONGEST:g}; choose one in "
            "this range."
        )
