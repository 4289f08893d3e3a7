"""Overlays show the numbers they were given, at the image's own aspect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rvelens.hooks.enhanced import Masks
from rvelens.plots import head_overlays, overlay, overlay_enhanced
from rvelens.tokens.grid import center_crop_box, single_tile

WIDE = Image.new("RGB", (80, 40), (200, 120, 60))
GRID = single_tile(4, 4, center_crop_box(80, 40))


def masks(n_layers=3, tokens=16):
    """Token 5 is enhanced in every layer, token 6 is removed in the first one."""
    enhancing = torch.zeros(1, tokens, dtype=torch.bool)
    enhancing[0, 5:7] = True
    result = {}
    for layer in range(n_layers):
        denoising = torch.zeros_like(enhancing)
        denoising[0, 6] = layer == 0
        result[layer + 4] = Masks(enhancing, denoising, enhancing & ~denoising)
    return result


def drawn(axes):
    """The RGB picture that an axes shows."""
    return np.asarray(axes.images[0].get_array())


def patch(picture, row, column):
    """The mean colour of a patch of the 4 x 4 grid in the middle of the wide image."""
    height, width = picture.shape[:2]
    y = int((row + 0.5) / 4 * height)
    x = int((0.25 + (column + 0.5) / 8) * width)
    return picture[y - 5 : y + 5, x - 5 : x + 5].mean(axis=(0, 1))


def test_overlay_keeps_the_aspect_and_dims_what_was_cropped():
    values = np.zeros(16)
    values[5] = 1.0
    axes = overlay(WIDE, values, GRID, title="t", label="l").axes[0]
    picture = drawn(axes)
    assert picture.shape[1] == 2 * picture.shape[0]
    assert axes.get_title() == "t"
    hot, cold, cropped = patch(picture, 1, 1), patch(picture, 2, 2), picture[10, 10]
    assert hot[1] > hot[2] + 0.3  # Viridis ends in yellow.
    assert np.ptp(cropped) < 1e-9
    assert cropped.mean() > max(cold.mean(), 0.85)


def test_overlay_wants_one_number_per_image_token():
    with pytest.raises(ValueError, match=r"expected \(16,\)"):
        overlay(WIDE, np.zeros(9), GRID)
    with pytest.raises(ValueError, match="16 of 16 numbers are NaN or infinite: expected a finite"):
        overlay(WIDE, np.full(16, np.nan), GRID)


def test_overlay_of_nothing_at_all():
    overlay(WIDE, np.zeros(16), GRID).canvas.draw()


def test_enhanced_and_removed_tokens_have_panels_of_their_own():
    figure = overlay_enhanced(WIDE, masks(), GRID, title="Is it?")
    image, enhanced, removed = figure.axes[:3]
    titles = [axes.get_title() for axes in (image, enhanced, removed)]
    assert titles == ["image", "enhanced", "removed by denoising"]
    assert figure.get_suptitle() == "Is it?\nRVE in layers 4-6"
    plain = patch(drawn(enhanced), 3, 3)
    assert np.ptp(plain) < 1e-9  # Untouched tokens stay grey.
    always, often = patch(drawn(enhanced), 1, 1), patch(drawn(enhanced), 1, 2)
    assert np.ptp(always) > 0.2
    assert np.ptp(often) > 0.1
    assert not np.allclose(always, often)
    assert np.allclose(patch(drawn(removed), 1, 1), plain)
    assert np.ptp(patch(drawn(removed), 1, 2)) > 0.1


def test_enhanced_needs_masks():
    with pytest.raises(ValueError, match="no masks were recorded"):
        overlay_enhanced(WIDE, {}, GRID)


def test_an_image_so_thin_that_no_pixel_is_seen():
    thin = Image.new("RGB", (200, 1))
    grid = single_tile(4, 4, center_crop_box(200, 1))
    overlay(thin, np.zeros(16), grid).canvas.draw()
    overlay_enhanced(thin, masks(), grid).canvas.draw()


def test_each_head_has_a_panel_of_its_own_scale():
    most = {7: np.eye(16)[5] * 0.9, 2: np.eye(16)[10] * 1e-6}
    figure = head_overlays(WIDE, most, {1: np.zeros(16)}, GRID, layer=3, scores={7: 0.5})
    whole, first, second, least = figure.axes[:4]
    assert drawn(whole).shape[1] == 2 * drawn(whole).shape[0]
    titles = [axes.get_title().split() for axes in (first, second, least)]
    assert titles == [["head", "7", "ARS", "0.50"], ["head", "2"], ["head", "1"]]
    hot, faint = patch(drawn(first), 1, 1), patch(drawn(second), 2, 2)
    np.testing.assert_allclose(hot, faint, atol=0.1)  # both are their head's largest
    assert np.ptp(patch(drawn(first), 2, 2)) < np.ptp(hot) / 2
    assert figure.get_suptitle() == "layer 3"
    assert [t.get_text() for axes in (first, least) for t in axes.texts] == [
        "a  most sensitive heads",
        "b  least sensitive heads",
    ]


def test_overlays_of_heads_want_heads():
    with pytest.raises(ValueError, match="no heads: expected the attention of at least one"):
        head_overlays(WIDE, {}, {1: np.zeros(16)}, GRID, layer=3)
    with pytest.raises(ValueError, match=r"expected \(16,\)"):
        head_overlays(WIDE, {1: np.zeros(9)}, {}, GRID, layer=3)
