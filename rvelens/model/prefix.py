"""The prompt up to the end of its image, computed once for all questions about the image.

The result is exact for every edit that begins after the image. `rvelens.model.replay` shares everything
before the last token among settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rvelens.families import FAMILIES
from rvelens.model.filling import fill, roomy_cache
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.limits import check_length
from rvelens.model.prompts import ImageLike, Images, pair_up
from rvelens.seam.arguments import ModelInputs

# Inputs with one entry per key; the others (pixel values, image sizes) go with the prefix whole.
PER_KEY = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")

# The families of this package for which the tests verify that a replay equals a whole forward.
REPLAYS = tuple(family.name for family in FAMILIES.values() if family.replays)


def check_replays(model: HookedLVLM) -> None:
    """Raise ValueError if a prompt cannot be run in parts, because of the family or of hooks."""
    if not model.family.replays:
        raise ValueError(
            f"the last token of {model.family.name} cannot be replayed alone: expected one of "
            f"{', '.join(REPLAYS)}; run whole forwards."
        )
    if model.list_hooks():
        raise ValueError(
            "hooks are on during prefill: expected none, since every setting shares the prefix; "
            "turn them on afterwards, around replay or generate."
        )


Edit = Callable[[Mapping[str, Any], Sequence[int]], Mapping[str, Any]]


@torch.no_grad()
def prepare_shared(
    model: HookedLVLM,
    images: Images,
    questions: str | Sequence[str],
    prompt: str = "chat",
    edit: Edit = lambda inputs, samples: inputs,
) -> dict[str, Any]:
    """`model.prepare`, with everything up to the end of each image already computed and cached.

    Questions share this work if they have the same image (the same path or object) after the same text.

    Args:
        model: the hooked model, without active hooks.
        images, questions, prompt: as in `model.prepare`.
        edit: a function from `(inputs, samples)` to the inputs to run, for example with noise on the
            pixels. The inputs hold one question for each prefix, and `samples` are the numbers of these
            questions.

    Returns:
        input_ids, attention_mask and position_ids [batch key], left-padded at the start and between
        image and question, and past_key_values, for one call of `model.generate(**inputs)`, greedy or
        sampled.

    Raises:
        ValueError: an error of `model.prepare` or `prefill`, or a prompt with nothing after its image.
    """
    check_replays(model)
    image_list, question_list = pair_up(images, questions)
    around = model.text_around_image(question_list, prompt)
    keys = [
        (identity(image), tuple(before.tolist()))
        for image, (before, _) in zip(image_list, around, strict=True)
    ]
    order = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    chosen = [keys.index(key) for key in order]
    inputs = edit(
        model.prepare([image_list[n] for n in chosen], [question_list[n] for n in chosen], prompt),
        chosen,
    )
    tails = [after for _, after in around]
    heads = _heads(model, inputs, [tails[n] for n in chosen], prompt)
    lengths = [len(heads[order[key]]) + len(tail) for key, tail in zip(keys, tails, strict=True)]
    check_length(model.hf_model.config, {"input_ids": torch.empty(1, max(lengths))})
    head, head_mask = _left_padded(heads, model.device)
    rest = {k: v for k, v in inputs.items() if k not in PER_KEY}
    cache = roomy_cache(model)
    fill(
        model, cache, **rest, input_ids=head, attention_mask=head_mask,
        position_ids=positions(head_mask),
    )  # fmt: skip
    of_question = torch.tensor([order[key] for key in keys], device=model.device)
    if len(order) < len(keys):  # else each question has an image of its own
        cache.batch_select_indices(of_question)
    tail, tail_mask = _left_padded(tails, model.device)
    whole = torch.cat([head_mask[of_question], tail_mask], dim=1)
    return {
        "input_ids": torch.cat([head[of_question], tail], dim=1),
        "attention_mask": whole,
        "position_ids": positions(whole),
        "past_key_values": cache,
    }


def identity(image: ImageLike) -> str | int:
    """A key that is equal for equal paths, and for the same object."""
    return str(image) if isinstance(image, str | Path) else id(image)


def positions(mask: Int[Tensor, "batch key"]) -> Int[Tensor, "batch key"]:
    """Position ids that do not count padding, wherever the padding is."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def ends_in_question(model: HookedLVLM, prompt: str) -> bool:
    """Whether a prompt has its question after its image, so that `prepare_shared` saves work."""
    (before, after), (other_before, other_after) = model.text_around_image(["no", "yes no"], prompt)
    return torch.equal(before, other_before) and not torch.equal(after, other_after)


def can_share(model: HookedLVLM, prompt: str) -> bool:
    """Whether `prepare_shared` is exact in this family, and saves work with this prompt."""
    return model.family.replays and ends_in_question(model, prompt)


def _heads(
    model: HookedLVLM, inputs: ModelInputs, tails: Sequence[Int[Tensor, " _"]], prompt: str
) -> list[Int[Tensor, " _"]]:
    """Token ids of each prompt up to the end of its image, without padding."""
    heads = []
    for ids, mask, tail in zip(
        inputs["input_ids"], inputs["attention_mask"].bool(), tails, strict=True
    ):
        real, tail = ids[mask], tail.to(ids.device)
        n_head = len(real) - len(tail)
        image = (real == model.image_token_id).nonzero()
        if not len(tail) or not torch.equal(real[n_head:], tail) or int(image.max()) >= n_head:
            raise ValueError(
                f"the prompt {prompt!r} of {model.family.name} has no text behind its image that reads "
                "the same without it: expected the question there; use model.prepare."
            )
        heads.append(real[:n_head])
    return heads


def _left_padded(
    rows: Sequence[Int[Tensor, " _"]], device: torch.device
) -> tuple[Int[Tensor, "batch key"], Int[Tensor, "batch key"]]:
    """Rows of token ids as one batch, and its attention mask; what stands for padding is masked."""
    ids = pad_sequence([row.to(device) for row in rows], batch_first=True, padding_side="left")
    ones = [torch.ones_like(row, device=device) for row in rows]
    return ids, pad_sequence(ones, batch_first=True, padding_side="left")
