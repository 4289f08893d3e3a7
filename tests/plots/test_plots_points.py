"""One point a head, coloured by its layer."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import label

from rvelens.plots import scatter

X, Y = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.6, np.nan, 0.8])
LAYER = np.array([0, 0, 1, 1])


def draw(x=X, y=Y, layer=LAYER, **more):
    return scatter(x, y, layer, x_label="ARS", y_label="AUC", **more)


def test_points_lie_where_they_belong_with_the_colour_of_their_layer():
    figure = draw(title="rho = 0.5", reference=("chance", 0.5))
    dots = figure.axes[0].collections[0]
    np.testing.assert_allclose(dots.get_offsets(), [[0.1, 0.5], [0.2, 0.6], [0.4, 0.8]])
    assert dots.get_array().tolist() == [0, 0, 1]
    colours = dots.to_rgba(dots.get_array())
    assert (colours[0] == colours[1]).all()
    assert (colours[0] != colours[2]).any()
    assert label(figure, "chance")
    assert label(figure, "ARS (without 1 of 4 heads: no number)")


def test_layers_are_told_apart_by_lightness_too():
    colours = draw(np.arange(32.0), np.arange(32.0), np.arange(32)).axes[0].collections[0].cmap
    light = np.array(colours.colors)[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()
    assert light.max() < 0.8  # seen on white


def test_scatter_wants_a_layer_a_head(unchecked):
    with pytest.raises(ValueError, match="4 x, 4 y and 3 layers: expected as many of each"):
        draw(layer=LAYER[:3])
