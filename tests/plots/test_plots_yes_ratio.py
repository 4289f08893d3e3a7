"""Accuracy over yes-ratio: points, intervals and labels where they belong, all of it legible."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import check_words, label, smallest_text

from rvelens.plots import yes_ratio_points


def figures(*pairs):
    def estimate(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.05}

    return {
        f"method {n}": {"yes_ratio": estimate(x), "accuracy": estimate(y)}
        for n, (x, y) in enumerate(pairs)
    }


def test_points_and_intervals_are_the_figures():
    figure = yes_ratio_points(figures((0.3, 0.6), (0.5, 0.7)), 0.4, title="a benchmark")
    axes = figure.axes[0]
    points = {
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() != "None"
    }
    assert points >= {(0.3, 0.6), (0.5, 0.7)}
    across, upright = axes.collections[:2]
    np.testing.assert_allclose(across.get_segments()[0], [[0.2, 0.6], [0.35, 0.6]])
    np.testing.assert_allclose(upright.get_segments()[0], [[0.3, 0.5], [0.3, 0.65]])
    assert label(figure, "method 0")
    assert label(figure, "yes is right")


@pytest.mark.parametrize("pairs", [[(0.5, 0.5)], [(0.5, 0.7)] * 7, [(0.0, 0.0), (1.0, 1.0)]])
def test_words_can_be_read(pairs):
    figure = yes_ratio_points(figures(*pairs), 0.5)
    check_words(figure)
    assert smallest_text(figure) >= 7


def test_figures_without_yes_ratio_are_refused():
    with pytest.raises(
        ValueError, match=r"no method has accuracy and yes-ratio: expected .*; choose"
    ):
        yes_ratio_points({"vanilla": {"accuracy": None, "yes_ratio": None}}, 0.5)
