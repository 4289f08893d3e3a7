"""Surfaces and bands: numbers in their cells, the right cell marked, colours centred."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import label
from matplotlib.patches import Rectangle

from rvelens.plots import bands, surface

X, Y = np.array([0.01, 0.05, 0.5]), np.array([0.5, 1.0])
Z = np.array([[0.70, 0.71, 0.72], [0.73, 0.79, np.nan]])


def draw(z=Z, **more):
    return surface(X, Y, z, x_label="alpha", y_label="beta", z_label="accuracy", **more)


def gains(n):
    """[first last], the best band in the middle."""
    first, last = np.indices((n, n))
    return 0.05 - 0.01 * np.abs(first - n // 3) - 0.01 * np.abs(last - n // 2)


def frames(axes):
    """Row and column in the middle of each frame, with its line style."""
    found = [p for p in axes.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return {
        p.get_linestyle(): (
            round(p.get_y() + p.get_height() / 2),
            round(p.get_x() + p.get_width() / 2),
        )
        for p in found
    }


def numbers(axes):
    return {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}


def test_each_number_is_in_its_cell():
    axes = draw().axes[0]
    np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), Z)
    assert numbers(axes) == {
        (row, column): f"{Z[row, column]:.3f}"
        for row, column in np.ndindex(2, 3)
        if np.isfinite(Z[row, column])
    }
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.01", "0.05", "0.5"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.5", "1"]
    assert axes.images[0].origin == "lower"
    hatched = [(p.get_y() + 0.5, p.get_x() + 0.5) for p in axes.patches if p.get_hatch()]
    assert hatched == [(1, 2)]


def test_best_and_papers_cells_are_framed():
    figure = draw(paper=(0.05, 0.5))
    assert frames(figure.axes[0]) == {"-": (1, 1), "--": (0, 1)}
    assert label(figure, "best: 0.790")
    assert label(figure, "paper's setting: 0.710")
    both = draw(paper=(0.05, 1.0))
    assert frames(both.axes[0]) == {"-": (1, 1), "--": (1, 1)}


def test_colours_turn_at_the_centre():
    scale = draw(centre=0.72).axes[0].images[0].norm
    assert scale(0.72) == pytest.approx(0.5)
    assert scale(0.79) == pytest.approx(1.0)
    signed = draw(Z - 0.75, centre=0.0)
    assert label(signed, "best: +0.040")
    assert numbers(signed.axes[0])[0, 0] == "−0.050"


def test_numbers_that_would_not_fit_are_left_out():
    n = 14
    z = np.random.default_rng(0).random((n, n))
    axes = surface(np.arange(n), np.arange(n), z, x_label="", y_label="", z_label="z").axes[0]
    assert not axes.texts
    row, column = np.unravel_index(z.argmax(), z.shape)
    assert axes.lines[0].get_xydata().tolist() == [[column, row]]


def test_a_surface_without_numbers():
    figure = draw(np.full((2, 3), np.nan), paper=(0.05, 1.0))
    assert frames(figure.axes[0]) == {"--": (1, 1)}
    assert label(figure, "paper's setting: not measured")


def test_what_a_surface_refuses(unchecked):
    with pytest.raises(
        ValueError, match=r"z of shape \(3, 2\) over 2 y and 3 x: expected \(2, 3\)"
    ):
        draw(Z.T)
    with pytest.raises(
        ValueError, match=r"the paper's 0\.2 is not among x: expected one of 0\.01, 0\.05"
    ):
        draw(paper=(0.2, 1.0))


def test_bands_lie_at_first_and_last_layer():
    n = 6
    figure = bands(gains(n), preset=(3, 5))
    axes = figure.axes[0]
    shown = numbers(axes)
    assert len(shown) == 21
    assert shown[4, 1] == f"{gains(n)[1, 4]:+.3f}".replace("-", "−")
    assert frames(axes) == {"-": (3, 2), "--": (5, 3)}
    assert label(figure, "best: layers 2–3, +0.050")
    assert label(figure, "preset: layers 3–5, +0.020")
    assert axes.images[0].norm(0.0) == pytest.approx(0.5)


def test_what_is_below_the_diagonal_is_not_looked_at():
    odd = gains(6)
    odd[np.tril_indices(6, -1)] = 9.0
    figure = bands(odd)
    assert label(figure, "best: layers 2–3, +0.050")
    picture = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert np.isfinite(picture).sum() == 21
    assert not [p for p in figure.axes[0].patches if p.get_hatch()]


def test_bands_of_32_layers_have_rings_instead_of_numbers():
    figure = bands(gains(32), preset=(14, 31))
    axes = figure.axes[0]
    assert not axes.texts
    rings = {line.get_label(): line.get_xydata()[0].tolist() for line in axes.lines}
    assert rings["best: layers 10–16, +0.050"] == [10, 16]
    assert [14, 31] in rings.values()


def test_a_band_that_was_not_measured_is_hatched():
    some = gains(6)
    some[0, 5] = np.nan
    hatched = [p for p in bands(some).axes[0].patches if p.get_hatch()]
    assert [(p.get_x() + 0.5, p.get_y() + 0.5) for p in hatched] == [(0, 5)]


def test_what_bands_refuses(unchecked):
    with pytest.raises(ValueError, match=r"gains of shape \(2, 3\): expected a square"):
        bands(Z)
    for preset in ((3, 6), (4, 3), (-1, 2)):
        with pytest.raises(
            ValueError, match="among 6 layers: expected first and last layer, 0 to 5"
        ):
            bands(gains(6), preset=preset)
