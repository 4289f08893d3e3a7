"""What single heads look at for both texts of a contrastive pair, and answers without some heads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rvelens.app.asking import YesNoAnswer, answered, record_attention
from rvelens.app.models import Loaded
from rvelens.heads.pair import ContrastivePair
from rvelens.hooks import head_mask_hooks
from rvelens.interventions.methods import Method
from rvelens.model.prompts import load_image
from rvelens.scores.maps import ars
from rvelens.tokens.grid import ImageGrid

_HEAD = re.compile(r"(\d+)\.(\d+)")

# What `sorted_heads` sorts by.
ORDERS = ("score", "layer", "name")

Heads = Mapping[int, Sequence[int]]


@dataclass(frozen=True, eq=False)
class PairAttention:
    """A pair as every head of a model sees it.

    Attributes:
        model: its name.
        attention: post-softmax attention of the last token to each image token, not renormalised;
            of the question, then of the contrastive text.
        scores: equation 3 of this pair.
    """

    model: str
    image: Image.Image
    texts: tuple[str, str]
    grid: ImageGrid | None
    attention: Float[Tensor, "2 layer head image"] = field(repr=False)
    scores: Float[Tensor, "layer head"] = field(repr=False)


def see(loaded: Loaded, pair: ContrastivePair) -> PairAttention:
    """Attention of every head for both texts of a pair; the caller holds the lock.

    Raises:
        ValueError: texts that do not differ, or an empty one.
    """
    image, texts = load_image(pair.image), (pair.question, pair.contrastive)
    plain = Method("vanilla", {})
    attention, _ = record_attention(loaded.model, plain, [image] * 2, texts)
    by_layer = [ars(*attention[:, layer][:, None]) for layer in range(loaded.model.n_layers)]
    grid = loaded.model.image_grid(image)
    return PairAttention(loaded.model.name, image, texts, grid, attention, torch.cat(by_layer))


def parse_heads(text: str, n_layers: int, n_heads: int) -> dict[int, list[int]]:
    """Heads as a person writes them, "3.5, 4.1" for head 5 of layer 3 and head 1 of layer 4.

    Returns:
        heads by layer, ascending and without repetition; {} for an empty text.

    Raises:
        ValueError: something else, or a head that the model lacks.
    """
    by_layer: dict[int, set[int]] = {}
    for part in re.split(r"[,;\s]+", re.sub(r"\s*\.\s*", ".", text.strip())):
        if not part:
            continue
        match = _HEAD.fullmatch(part)
        if match is None:
            raise ValueError(
                f"heads {text.strip()!r}: expected layer.head such as '3.5, 4.1'; correct {part!r}."
            )
        layer, head = int(match[1]), int(match[2])
        if layer >= n_layers or head >= n_heads:
            raise ValueError(
                f"head {part} of a model of {n_layers} layers x {n_heads} heads: expected layers 0 "
                f"to {n_layers - 1} and heads 0 to {n_heads - 1}; correct it."
            )
        by_layer.setdefault(layer, set()).add(head)
    return {layer: sorted(by_layer[layer]) for layer in sorted(by_layer)}


def format_heads(heads: Heads) -> str:
    """Heads as `parse_heads` reads them."""
    return ", ".join(f"{layer}.{head}" for layer in sorted(heads) for head in sorted(heads[layer]))


def toggled(text: str, head: str, n_layers: int, n_heads: int) -> str:
    """The list with a head added, or without it where it is there already."""
    heads = parse_heads(text, n_layers, n_heads)
    ((layer, (number,)),) = parse_heads(head, n_layers, n_heads).items()
    numbers = set(heads.get(layer, []))
    return format_heads(heads | {layer: sorted(numbers ^ {number})})


def brushed(text: str, first: str, last: str, n_layers: int, n_heads: int) -> str:
    """The list with a rectangle of the map added, or without it where all of it is there already.

    Args:
        text: the list, as `parse_heads` reads it.
        first, last: heads at two opposite corners, "layer.head".

    Raises:
        ValueError: as `parse_heads` raises.
    """
    heads = parse_heads(text, n_layers, n_heads)
    corners = [parse_heads(corner, n_layers, n_heads) for corner in (first, last)]
    layers = [layer for corner in corners for layer in corner]
    columns = [numbers[0] for corner in corners for numbers in corner.values()]
    rectangle = {
        (layer, head)
        for layer in range(min(layers), max(layers) + 1)
        for head in range(min(columns), max(columns) + 1)
    }
    chosen = {(layer, head) for layer, numbers in heads.items() for head in numbers}
    new = chosen - rectangle if rectangle <= chosen else chosen | rectangle
    return ", ".join(f"{layer}.{head}" for layer, head in sorted(new))


def sorted_heads(scores: Float[np.ndarray, "layer head"], by: str) -> list[tuple[int, int]]:
    """All heads in an order of `ORDERS`.

    By score: the highest first. By layer: layers upwards, in each the highest score first. By name:
    layers upwards, in each by number.
    """
    heads = [(int(layer), int(head)) for layer, head in np.ndindex(*scores.shape)]
    if by == "name":
        return heads
    if by == "layer":
        return sorted(heads, key=lambda at: (at[0], -scores[at]))
    return sorted(heads, key=lambda at: -scores[at])


def ask_without(
    loaded: Loaded, image: Image.Image, texts: Sequence[str], heads: Heads
) -> list[tuple[YesNoAnswer, YesNoAnswer]]:
    """Each text's answer with all heads and without some; the caller holds the lock.

    Raises:
        ValueError: no heads, or an empty text.
    """
    if not heads:
        raise ValueError(
            "no heads are given: expected the heads to mask; write '3.5, 4.1' or click the map."
        )
    images, masked = [image] * len(texts), Method("masked", {}, tuple(head_mask_hooks(heads)))
    before, after = (
        answered(loaded.model, method, images, texts) for method in (Method("vanilla", {}), masked)
    )
    return list(zip(before, after, strict=True))
