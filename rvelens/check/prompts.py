"""Checks of what the processor makes: visual tokens and the text around them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import ImageOps
from torch import Tensor

from rvelens.check.outcome import Outcome, describe_error, failed, not_applicable, passed
from rvelens.check.subject import Subject
from rvelens.model.prompts import image_text, render_prompt
from rvelens.seam.arguments import ModelInputs


def check_image_tokens(subject: Subject) -> Outcome:
    """The positions that follow the picture are those that the ids name."""
    image, hint = subject.image_keys(subject.inputs), _ids_that_differ(subject)
    if not bool(image.any(dim=1).all()):
        return failed(f"a prompt with an image has no visual token{hint}")
    try:
        before, after = (embeddings_of(subject, x) for x in (subject.inputs, _inverted(subject)))
    except Exception as error:  # models count their image tokens, and say so where they are wrong
        return failed(f"{describe_error(error)}{hint}")
    if before is None or after is None:
        return not_applicable("the decoder gets no embeddings that show what follows the picture")
    moved = (before != after).any(dim=-1).to(image.device)
    if not bool(moved.any()):
        return failed("an inverted picture changes no embedding of the prompt")
    if bool((moved & ~image).any()):
        n = int((moved & ~image).sum())
        return failed(f"{n} embeddings follow the picture, and their ids are not of visual tokens")
    unmoved = int((image & ~moved).sum())
    if unmoved > int(image.sum()) // 4:
        return failed(f"{unmoved} of {int(image.sum())} visual tokens do not follow the picture")
    return passed(
        f"an inverted picture changes the embeddings of {int(moved.sum())} visual tokens, "
        "and of no others"
    )


def _ids_that_differ(subject: Subject) -> str:
    """What to add to a reason where processor and configuration name different image tokens."""
    model = subject.model
    named = getattr(model.processor, "image_token_id", None)
    configured = getattr(model.hf_model.config, "image_token_id", None)
    if named is None or configured is None or int(named) == int(configured):
        return ""
    return (
        f"; the processor's image token is {int(named)}, and image_token_id of the configuration is "
        f"{int(configured)}"
    )


def _inverted(subject: Subject) -> ModelInputs:
    """The same prompt about the inverted picture."""
    if subject.image is not None:
        inverted = ImageOps.invert(subject.image)
        return subject.model.prepare(inverted, subject.question)
    return {
        name: -x if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in subject.inputs.items()
    }


@torch.no_grad()
def embeddings_of(
    subject: Subject, inputs: ModelInputs
) -> Float[Tensor, "batch key d_model"] | None:
    """What the decoder gets in the place of ids."""
    embeddings: list[Tensor] = []

    def record(module: Any, args: Any, kwargs: Any) -> None:
        embeds = kwargs.get("inputs_embeds")
        if embeds is not None:
            embeddings.append(embeds.detach().clone())

    decoder: Any = subject.model.hf_model.get_decoder()
    handle = decoder.register_forward_pre_hook(record, with_kwargs=True)
    try:
        subject.model(**inputs)
    finally:
        handle.remove()
    return embeddings[-1] if embeddings else None


def check_prompt_tokens(subject: Subject) -> Outcome:
    """The prompt holds the tokens of its text, and beyond them only what stands for the image."""
    model = subject.model
    if model.processor is None or subject.image is None:
        return not_applicable("tensors were given, so no processor made the prompt")
    ids = subject.inputs["input_ids"][0]
    tokenizer = model.processor.tokenizer
    before, after = _text_ids(subject)
    text = ids[~subject.image_keys(subject.inputs)[0]]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None and len(text) > 1 and bool((text[:2] == bos).all()):
        return failed(f"the prompt starts with the beginning-of-sequence token {bos} twice")
    if not _starts_with(text, before):
        return failed(f"the prompt does not start with the {len(before)} tokens before the image")
    if not _starts_with(text.flip(0), after.flip(0)):
        return failed(f"the prompt does not end with the {len(after)} tokens behind the image")
    if eos is not None and int(ids[-1]) == eos and (not len(after) or int(after[-1]) != eos):
        return failed(f"the prompt ends with the end-of-sequence token {eos}")
    others = len(text) - len(before) - len(after)
    return _with_others(subject, others)


def _with_others(subject: Subject, others: int) -> Outcome:
    """What the processor puts near the image must not follow the question."""
    model = subject.model
    counts = set()
    for question in subject.questions:
        inputs = model.prepare(subject.image, question)  # type: ignore[arg-type]  # it is there
        n_text = sum(map(len, _text_ids(subject, question)))
        n_image = int(subject.image_keys(inputs).sum())
        counts.add((n_image, inputs["input_ids"].shape[1] - n_image - n_text))
    if len(counts) > 1:
        return failed("the tokens that stand for the image change with the question")
    if others < 0:
        return failed("the prompt is shorter than its text")
    return passed(
        f"the tokenizer's own tokens around {next(iter(counts))[0]} visual tokens and {others} "
        "others of the processor"
    )


def _text_ids(
    subject: Subject, question: str | None = None
) -> tuple[Int[Tensor, " before"], Int[Tensor, " after"]]:
    """Ids of the prompt's text before and behind the image."""
    model, question = subject.model, question or subject.question
    device = subject.inputs["input_ids"].device
    if image_text(model.family, model.processor):
        ((before, after),) = model.text_around_image([question])
        return before.to(device), after.to(device)
    # The processor puts the image first by itself.
    text = render_prompt(model.family, model.processor, question, "chat")
    ids = torch.tensor(model.processor.tokenizer([text])["input_ids"][0], device=device)
    return ids[:0], ids


def _starts_with(ids: Int[Tensor, " key"], start: Int[Tensor, " before"]) -> bool:
    return len(ids) >= len(start) and bool(torch.equal(ids[: len(start)], start))
