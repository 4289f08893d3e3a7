"""Figures in notebooks: shown without pyplot, at their size."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib import style
from PIL import Image

from rvelens import ARSProfile
from rvelens.hooks.enhanced import Masks
from rvelens.plots import (
    COLUMN,
    Series,
    ars_heatmap,
    head_overlays,
    house_style,
    lines,
    new_figure,
    overlay,
    overlay_enhanced,
)
from rvelens.tokens.grid import single_tile

PICTURE, GRID = Image.new("RGB", (40, 40), "red"), single_tile(2, 2)
VALUES = np.linspace(0, 1, 4)
MASK = torch.tensor([[True, False, False, True]])


def own():
    with house_style():
        figure, axes = new_figure(COLUMN, 2.0, "one's own")
        axes.bar(range(4), VALUES)
    return figure


FIGURES = {
    "own": own,
    "overlay": lambda: overlay(PICTURE, VALUES, GRID),
    "enhanced": lambda: overlay_enhanced(PICTURE, {3: Masks(MASK, ~MASK, MASK)}, GRID),
    "heads": lambda: head_overlays(PICTURE, {0: VALUES}, {1: VALUES}, GRID, layer=2),
    "ars": lambda: ars_heatmap(ARSProfile.from_scores(torch.rand(3, 4))),
    "lines": lambda: lines({"a": Series(VALUES)}, x_label="x", y_label="y"),
}


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_notebook_is_given_a_picture_of_twice_the_shown_size(name):
    figure = FIGURES[name]()
    data, shown = figure._repr_png_()
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert abs(picture.width - 2 * shown["width"]) <= 2
    assert abs(picture.height - 2 * shown["height"]) <= 2
    assert np.asarray(picture.convert("L")).std() > 5  # not an empty page


def test_the_callers_style_does_not_show():
    figure = FIGURES["ars"]()
    plain, shown = pixels(figure)
    with style.context("dark_background"):
        dark, shown_there = pixels(figure)
    assert shown == shown_there
    # Two layouts of one figure may differ by a pixel's width; a dark page would by more than 100.
    assert np.abs(plain - dark).mean() < 10


def pixels(figure):
    data, shown = figure._repr_png_()
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(float), shown
