"""What the last prompt token attends to, question by question, for any family of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from rvelens.benchmarks import Item
from rvelens.hooks.rows import last_row
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.studies.kit.base import Batch, Setup

Weights = Float[Tensor, "layer head key"]
IsImage = Bool[Tensor, " key"]


@torch.no_grad()
def last_rows(
    model: HookedLVLM, images: Sequence[Image.Image], texts: Sequence[str], prompt: str
) -> list[tuple[Weights, IsImage]]:
    """Attention of each prompt's last token, in one whole forward, and which keys are image tokens.

    Returns:
        for each prompt its weights, post-softmax, float32 on the CPU, [layer head key], and a mask
        [key]; padding is left out of both.
    """
    inputs = model.prepare(list(images), list(texts), prompt)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in model.attention_layers]
    _, cache = model.run_with_cache(**inputs, names_filter=names, logits_to_keep=1)
    tokens = model.token_map(inputs)
    rows = torch.stack([last_row(cache[name], tokens).float().cpu() for name in names], dim=1)
    real, image = tokens.real.cpu(), tokens.image.cpu()
    return [
        (row[..., is_real], is_image[is_real])
        for row, is_real, is_image in zip(rows, real, image, strict=True)
    ]


def each_row(
    setup: Setup,
    label: str,
    items: Sequence[Item],
    read: Callable[[Item, Image.Image, Weights, IsImage], Any],
) -> dict[str, Any]:
    """What `read` makes of each question's last row (as JSON), by id; kept batch by batch.

    Args:
        setup: of the study.
        label: names what is read; a file's name.
        items: questions.
        read: a question, its picture, its weights and which keys are image tokens, as in `last_rows`.

    Raises:
        ValueError: none of the pictures could be read.
    """

    def compute(batch: Batch) -> list[Any]:
        if not batch.items:
            return []
        rows = last_rows(setup.model, batch.images, batch.texts, setup.decoding.prompt)
        return [
            read(item, image, *row)
            for item, image, row in zip(batch.items, batch.images, rows, strict=True)
        ]

    by_item = setup.map_items(label, items, compute)
    check_read(setup, items, by_item)
    return by_item


def check_read(setup: Setup, items: Sequence[Item], by_item: Mapping[str, Any]) -> None:
    """Raise ValueError where nothing was computed of any item, since no picture could be read."""
    if not by_item:
        reason = next(iter(setup.unreadable.values()), "there are none")
        raise ValueError(
            f"none of {len(items)} pictures could be read ({reason}): expected at least one; check "
            "the files in the data folder."
        )
