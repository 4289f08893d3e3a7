"""The check of the patch grid: a spot that is painted is drawn where it was painted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from rvelens.check.outcome import Outcome, failed, not_applicable, passed
from rvelens.check.prompts import embeddings_of
from rvelens.check.subject import Subject
from rvelens.tokens.grid import ImageGrid

_CENTRES = ((0.5, 0.3), (0.35, 0.5), (0.62, 0.66))
# The output projection of attention in a vision tower; what else moves numbers between patches stays.
_MIXING = re.compile(r"vis.*att.*\.(out_proj|proj|projection_layer)$")
# Patches around a spot that resampling may blur it into.
_AROUND = 1.6


def check_grid(subject: Subject) -> Outcome:
    """Tokens whose embeddings follow a painted spot are those that the grid draws there."""
    model, picture = subject.model, subject.image
    if picture is None:
        return not_applicable("tensors were given, so no spot can be painted on a picture")
    grid = model.image_grid(picture)
    if grid is None:
        return not_applicable(f"{model.family.name} has no patch grid")
    spot = max(4, min(picture.size) // 7)
    with _apart_patches(model.hf_model) as isolated:
        base = _features(subject, picture)
        for x, y in _CENTRES:
            corner = int(x * picture.width - spot / 2), int(y * picture.height - spot / 2)
            if not _is_seen(grid, picture.size, corner, spot):
                continue
            moved = (_features(subject, _painted(picture, corner, spot)) - base).norm(dim=-1)
            reason = _misplaced(grid, moved.cpu().numpy(), picture.size, corner, spot, isolated)
            if reason:
                return failed(f"a spot of {spot} pixels at {corner[0]}, {corner[1]}: {reason}")
    return passed(f"{len(_CENTRES)} painted spots of {spot} pixels are drawn where they are")


def _painted(picture: Image.Image, corner: tuple[int, int], spot: int) -> Image.Image:
    painted = picture.copy()
    mean = np.asarray(picture).mean()
    x, y = corner
    painted.paste((0, 0, 0) if mean > 127 else (255, 255, 255), (x, y, x + spot, y + spot))
    return painted


def _features(subject: Subject, picture: Image.Image) -> Float[Tensor, "image d_model"]:
    """What the decoder gets for each image token."""
    inputs = subject.model.prepare(picture, subject.question)
    embeds = embeddings_of(subject, inputs)
    assert embeds is not None  # a family with a grid hands embeddings over
    return embeds[0][subject.image_keys(inputs)[0].to(embeds.device)].float()


def _is_seen(grid: ImageGrid, size: tuple[int, int], corner: tuple[int, int], spot: int) -> bool:
    """Whether the processor leaves the whole spot in the picture."""
    drawn = grid.picture(np.zeros(grid.n_tokens), *size)
    return bool(np.isfinite(drawn[_square(size, corner, spot)]).all())


def _misplaced(
    grid: ImageGrid,
    moved: Float[np.ndarray, " image"],
    size: tuple[int, int],
    corner: tuple[int, int],
    spot: int,
    isolated: bool,
) -> str | None:
    """Why the tokens that moved are not those of the spot."""
    largest = float(moved.max())
    if largest == 0:
        return "no token follows it"
    inner = corner[0] + spot // 4, corner[1] + spot // 4
    centre = _square(size, inner, max(1, spot // 2))
    if grid.picture(moved, *size)[centre].min() < 0.02 * largest:
        return "the tokens drawn there do not follow it"
    if not isolated:
        return None
    for tile in grid.tiles:
        lit = ImageGrid(grid.n_tokens, (tile,)).picture(moved, *size) > 1e-3 * largest
        x0, y0, x1, y1 = tile.box
        near = (x1 - x0) / tile.columns * size[0], (y1 - y0) / tile.rows * size[1]
        if lit[~_square(size, corner, spot, near)].any():
            return "tokens drawn elsewhere follow it"
    return None


def _square(
    size: tuple[int, int],
    corner: tuple[int, int],
    spot: int,
    around: tuple[float, float] = (0.0, 0.0),
) -> Bool[np.ndarray, "height width"]:
    """Pixels of the spot, and of the patches around it."""
    dx, dy = _AROUND * around[0], _AROUND * around[1]
    columns, rows = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    inside_x = (columns > corner[0] - dx) & (columns < corner[0] + spot + dx)
    inside_y = (rows > corner[1] - dy) & (rows < corner[1] + spot + dy)
    return inside_y[:, None] & inside_x


@contextmanager
def _apart_patches(hf_model: nn.Module) -> Iterator[bool]:
    """Let no patch see another one in the vision tower; whether the tower has such attention."""
    handles = []

    def silence(module: nn.Module, args: Any, output: Any) -> Any:
        return torch.zeros_like(output)

    try:
        for path, module in hf_model.named_modules():
            if _MIXING.search(path) and isinstance(module, nn.Linear):
                handles.append(module.register_forward_hook(silence))
        yield bool(handles)
    finally:
        for handle in handles:
            handle.remove()
