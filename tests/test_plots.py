"""Figures show the numbers they were given, at the image's own aspect, without global state."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rvelens import ARSProfile
from rvelens.grid import center_crop_box, single_tile
from rvelens.hooks.enhanced import Masks
from rvelens.plots import ars_heatmap, overlay, overlay_enhanced, save_figure

WIDE = Image.new("RGB", (80, 40), (200, 120, 60))
GRID = single_tile(4, 4, center_crop_box(80, 40))
SCORES = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))


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


def test_heatmap_shows_every_score():
    figure = ars_heatmap(ARSProfile.from_scores(SCORES), title="m")
    left, right = figure.axes[:2]
    np.testing.assert_allclose(np.asarray(left.images[0].get_array()), SCORES.numpy())
    np.testing.assert_allclose(right.lines[0].get_xdata(), SCORES.mean(1).numpy(), rtol=1e-6)
    ordered = ars_heatmap(ARSProfile.from_scores(SCORES), sort=True).axes[0]
    expected = SCORES.sort(dim=1, descending=True).values.numpy()
    np.testing.assert_allclose(np.asarray(ordered.images[0].get_array()), expected)


def test_an_image_so_thin_that_no_pixel_is_seen():
    thin = Image.new("RGB", (20000, 1))
    grid = single_tile(4, 4, center_crop_box(20000, 1))
    overlay(thin, np.zeros(16), grid).canvas.draw()
    overlay_enhanced(thin, masks(), grid).canvas.draw()


def test_heatmap_needs_scores():
    with pytest.raises(ValueError, match="ranking without scores"):
        ars_heatmap(ARSProfile.published("llava-1.5-7b"))


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_files_of_each_kind(tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    save_figure(ars_heatmap(ARSProfile.from_scores(SCORES)), path)
    assert path.stat().st_size > 2000


def test_other_files_are_refused(tmp_path):
    figure = ars_heatmap(ARSProfile.from_scores(SCORES))
    with pytest.raises(ValueError, match=r"ends in \.png, \.pdf, \.svg"):
        save_figure(figure, tmp_path / "figure.gif")
    with pytest.raises(ValueError, match="no folder"):
        save_figure(figure, tmp_path / "none" / "figure.png")


def test_pyplot_is_never_imported():
    code = "import sys, rvelens.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
