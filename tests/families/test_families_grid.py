"""Patch grids, end to end: what is painted into the image is where the grid draws its token."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch
from family_cases import CASES, family_of_case, hooked, verifies
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_inputs import image
from tiny_models import build

from rvelens.tokens.grid import ImageGrid

WITH_GRID = [name for name in CASES if name != "instructblip"]
SIZES = [(96, 44), (60, 104), (80, 80)]
SPOT = 12
CENTRES = [(0.5, 0.3), (0.35, 0.5), (0.62, 0.66)]
VISION_MIXING = re.compile(r"vis.*att.*\.(out_proj|proj|projection_layer)\.(weight|bias)$")


@torch.no_grad()
def features(model, pictures):
    """What the vision tower hands to the decoder for each image token, [picture, image, width]."""
    inputs = model.prepare(pictures, "does a man hold a ball ?")
    seen = []

    def look(module, args, kwargs):
        seen.append(kwargs["inputs_embeds"])

    handle = model.hf_model.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    model(**inputs)
    handle.remove()
    rows = zip(seen[0], model.token_map(inputs).image, strict=True)
    return torch.stack([row[mask] for row, mask in rows])


def without_vision_attention(name):
    """The model of a case, with a vision tower in which a patch sees nothing but itself."""
    model = hooked(name)
    mixing = [p for n, p in model.hf_model.named_parameters() if VISION_MIXING.search(n)]
    assert mixing
    for weight in mixing:
        weight.data.zero_()
    return model


@verifies("grid", WITH_GRID)
@pytest.mark.parametrize("size", SIZES, ids=["landscape", "portrait", "square"])
def test_a_painted_spot_is_drawn_where_it_was_painted(name, size):
    model = without_vision_attention(name)
    width, height = size
    corners = [(int(x * width - SPOT / 2), int(y * height - SPOT / 2)) for x, y in CENTRES]
    pictures = [image(*size, seed=4) for _ in range(4)]
    for picture, (x, y) in zip(pictures[1:], corners, strict=True):
        picture.paste((255, 255, 255), (x, y, x + SPOT, y + SPOT))
    base, *painted = features(model, pictures)
    grid = model.family.grid(model.hf_model.config, model.processor, size, len(base))
    assert grid is not None
    for after, corner in zip(painted, corners, strict=True):
        moved = (after - base).norm(dim=-1).numpy()
        assert grid.picture(moved, width, height)[_square(corner, size)].min() > 0.02 * moved.max()
        for tile in grid.tiles:
            lit = ImageGrid(grid.n_tokens, (tile,)).picture(moved, width, height) > 1e-4
            x0, y0, x1, y1 = tile.box
            near = (x1 - x0) / tile.columns * width, (y1 - y0) / tile.rows * height
            assert not lit[~_square(corner, size, near)].any(), tile


def _square(corner, size, around=(0.0, 0.0)):
    """Pixels of the spot, and of the patches around it that it touches or is blurred into."""
    (x, y), (width, height) = corner, size
    dx, dy = 1.6 * around[0], 1.6 * around[1]
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside_x = (columns > x - dx) & (columns < x + SPOT + dx)
    inside_y = (rows > y - dy) & (rows < y + SPOT + dy)
    return inside_y[:, None] & inside_x


@cache
def _config_and_processor(name):
    hf_model, processor = build(name)
    return hf_model.config, processor


@pytest.mark.parametrize("name", WITH_GRID)
@settings(max_examples=40, deadline=None)
@given(width=st.integers(20, 200), height=st.integers(20, 200))
def test_a_grid_for_every_shape(name, width, height):
    """Every image of the processor's has a grid that adds up, and draws within the image."""
    config, processor = _config_and_processor(name)
    count = _n_image_tokens(config, processor, width, height)
    grid = family_of_case(name).grid(config, processor, (width, height), count)
    assert grid is not None
    assert grid.n_tokens == count
    drawn = grid.picture(np.arange(count, dtype=float), width, height)
    assert drawn.shape == (height, width)
    assert np.isfinite(drawn).any()
    placed = np.concatenate([t.values(np.arange(count, dtype=float)).ravel() for t in grid.tiles])
    assert len(set(placed.tolist())) == len(placed), "no token lies in two places"
    assert family_of_case(name).grid(config, processor, (width, height), count + 1) is None


def _n_image_tokens(config, processor, width, height):
    picture = Image.new("RGB", (width, height))
    text = f"{processor.image_token} is"
    batch = processor(images=[[picture]], text=[text], return_tensors="pt")
    return int((batch["input_ids"] == config.image_token_id).sum())
