"""Instruction contrastive decoding (Wang et al. 2024): the second branch gets a bad instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rvelens.families import llava
from rvelens.files.arguments import refuse_wrong_types
from rvelens.interventions.contrast import ContrastProcessor
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import Images, image_text, render_prompt

# The instruction is a parameter of the method, so it stands here as the authors' code has it.
# https://github.com/p1k0pan/ICD/blob/2fa44c5786a14dd902d8966303b7df073ac110ab/experiments/gen_scripts/icd_llava_pope.py#L121
DISTURBANCE = (
    "You are a confused objects detector to provide a fuzzy overview or impression of the image."
)
# System prompts that a disturbance takes the place of; before other prompts it is put.
_SYSTEMS = (llava.SYSTEM, "You are a helpful assistant.")


def disturbed_prompt(model: HookedLVLM, prompt: str, disturbance: str) -> str:
    """The template of a prompt preset with the disturbance as its system prompt.

    It takes the place of a system prompt that is there, and else stands before all other text.
    """
    text = render_prompt(model.family, model.processor, "{question}", prompt)
    token = image_text(model.family, model.processor)
    template = text.replace(token, "{image}") if token else "{image}" + text
    for system in _SYSTEMS:
        if system in template:
            return template.replace(system, disturbance)
    bos = getattr(model.processor.tokenizer, "bos_token", None) or ""
    bos = bos if template.startswith(bos) else ""
    return f"{bos}{disturbance} {template.removeprefix(bos)}"


@refuse_wrong_types
def icd_negative(
    model: HookedLVLM,
    images: Images,
    questions: str | Sequence[str],
    prompt: str = "chat",
    disturbance: str = DISTURBANCE,
) -> dict[str, Any]:
    """The same images and questions under a disturbing instruction, as one left-padded batch.

    It becomes the system prompt, or, where a Q-Former reads an instruction of its own
    (InstructBLIP), that instruction; the language model's prompt then stays as it was.

    Args:
        model: the model that generates.
        images, questions, prompt: as in `model.prepare`.
        disturbance: the instruction.

    Raises:
        ValueError: an empty disturbance, or what `model.prepare` raises.
    """
    check_disturbance(disturbance)
    if not hasattr(model.processor, "qformer_tokenizer"):
        template = disturbed_prompt(model, prompt, disturbance)
        return dict(model.prepare(images, questions, template))
    inputs = dict(model.prepare(images, questions, prompt))
    n_samples = inputs["input_ids"].shape[0]
    read = model.processor.qformer_tokenizer([disturbance] * n_samples, return_tensors="pt")
    for name in ("input_ids", "attention_mask"):
        inputs[f"qformer_{name}"] = read[name].to(model.device)
    return inputs


@refuse_wrong_types
def icd(
    model: HookedLVLM,
    images: Images,
    questions: str | Sequence[str],
    prompt: str = "chat",
    alpha: float = 1.0,
    beta: float = 0.1,
    disturbance: str = DISTURBANCE,
) -> ContrastProcessor:
    """The processor of one generation: contrast with the disturbing instruction.

    Args:
        model: the model that generates.
        images, questions, prompt: what its inputs were prepared from.
        alpha: strength (the authors' script: 1).
        beta: cutoff (the authors' script: 0.1).
        disturbance: the instruction, see `icd_negative`.

    Raises:
        ValueError: an argument outside its range, or see `icd_negative`.
    """
    negative = icd_negative(model, images, questions, prompt, disturbance)
    return ContrastProcessor(model, negative, alpha, beta)


def check_disturbance(disturbance: str) -> None:
    """Raise ValueError where there is no instruction."""
    if not disturbance.strip():
        raise ValueError(
            f"disturbance={disturbance!r}: expected a non-empty instruction; leave it out to "
            "use the authors'."
        )
