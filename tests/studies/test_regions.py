"""Where tokens lie and whether heads find a region, for one question."""

from __future__ import annotations

import pytest
import torch
from picture_questions import item
from PIL import Image
from tiny_models import build

from rvelens import HookedLVLM
from rvelens.studies.kit.regions import find_region, grid_of
from rvelens.tokens.grid import ImageGrid, Tile, single_tile


def test_a_family_without_a_grid_is_refused():
    hf_model, processor = build("instructblip")
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    with pytest.raises(
        ValueError, match="the image tokens of instructblip have no position in the"
    ):
        grid_of(model, Image.new("RGB", (40, 40)))


def test_newline_tokens_are_neither_inside_nor_outside():
    """2 x 2 patches with a newline behind each row; the region is the upper left patch."""
    grid = ImageGrid(6, (Tile(0, 2, 2, 3),))
    attention = torch.tensor([[[0.4, 0.1, 9.0, 0.2, 0.1, 9.0], [0.1, 0.1, 0.0, 0.1, 0.5, 0.0]]])
    asked = item(0, 0, regions=lambda: {"verb": ((0.0, 0.0, 8.0, 8.0),)})
    found = find_region(grid, asked, Image.new("RGB", (16, 16)), attention)
    # Head 0: 0.4 is above all three. Head 1: 0.1 ties with two of three and is below the third.
    assert found["auc"] == [[1.0, pytest.approx(1 / 3)]]
    assert found["enrichment"][0] == pytest.approx([0.4 / 0.8 * 4, 0.1 / 0.8 * 4])


def test_what_is_no_number_is_none():
    image = Image.new("RGB", (16, 16))
    everywhere = item(0, 0, regions=lambda: {"verb": ((0.0, 0.0, 16.0, 16.0),)})
    attention = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]]])
    found = find_region(single_tile(2, 2), everywhere, image, attention)
    assert found["auc"] == [[None, None]]
    assert found["enrichment"] == [[pytest.approx(1), None]]
