"""Lines: values where they belong, intervals, names at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import check_words, label, words

from rvelens.plots import Series, lines
from rvelens.stats import Estimate

ALPHA = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
Y = np.array([0.70, 0.72, 0.75, 0.74, 0.73, 0.71])


def draw(series, **more):
    return lines(series, x_label="x", y_label="y", **more)


def test_values_and_intervals_are_drawn():
    figure = draw({"RVE": Series(Y, ALPHA, Y - 0.01, Y + 0.03, "rve")})
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), np.column_stack([ALPHA, Y]))
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([s[:, 1] for s in segments], np.column_stack([Y - 0.01, Y + 0.03]))
    low, high = axes.get_ylim()
    assert low < Y.min() - 0.01
    assert high > Y.max() + 0.03


def test_many_points_have_a_band_and_no_markers():
    y = np.linspace(0, 1, 40)
    axes = draw({"a": Series(y, None, y - 0.1, y + 0.2)}).axes[0]
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 40)
    assert curve.get_marker() in ("", "None")
    edge = axes.collections[0].get_paths()[0].vertices
    assert edge[:, 1].min() == pytest.approx(-0.1)
    assert edge[:, 1].max() == pytest.approx(1.2)


def test_a_point_between_missing_ones_is_seen():
    y = np.linspace(0, 1, 40)
    y[[30, 32]] = np.nan
    axes = draw({"a": Series(y)}).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "D"]
    assert [line.get_xydata().tolist() for line in dots] == [[[31.0, y[31]]]]


def test_each_name_is_beside_its_line_in_its_colour():
    figure = draw({"low": Series(Y), "high": Series(Y + 1)}, reference=("vanilla", 1.2))
    heights = {name: words(figure)[label(figure, name)].y0 for name in ("low", "vanilla", "high")}
    assert heights["low"] < heights["vanilla"] < heights["high"]
    axes = figure.axes[0]
    assert label(figure, "high").get_color() == axes.lines[2].get_color()
    box = words(figure)[label(figure, "high")]
    end = axes.transData.transform((5, Y[-1] + 1))[1]
    assert box.y0 < end < box.y1


def test_the_figure_grows_for_its_names():
    few, many = (
        draw({f"line {n} with a rather long name": Series(Y + 0.001 * n) for n in range(count)})
        for count in (2, 12)
    )
    assert few.get_figheight() < many.get_figheight() < 8


def test_names_along_x_are_joined_over_lines():
    series = {"a": Series(Y[:2], ["K = 1", "K = 3"]), "b": Series(Y[:2], ["K = 3", "K = 5"])}
    axes = draw(series).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["K = 1", "K = 3", "K = 5"]
    assert axes.lines[1].get_xdata().tolist() == [1, 2]


def test_a_logarithmic_axis_names_the_settings():
    axes = draw({"a": Series(Y, ALPHA)}, log="x").axes[0]
    assert axes.get_xscale() == "log"
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
    both = draw({"a": Series(Y, ALPHA)}, log="xy").axes[0]
    assert both.get_yscale() == "log"


# Less than a decade, with and without a power of ten inside; more than one; several; one level.
SPANS = [(60, 80), (6, 14), (1, 1), (2, 30), (0.031, 0.034), (0.5, 400), (1e-3, 5e3)]


@pytest.mark.parametrize(("low", "high"), SPANS)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_logarithmic_axis_has_plain_numbers_that_do_not_collide(low, high, axis):
    along, across = np.geomspace(low, high, 20), np.linspace(1, 2, 20)
    x, y = (along, across) if axis == "x" else (across, along)
    figure = draw({"a": Series(y, x)}, log=axis)
    check_words(figure)
    shown = getattr(figure.axes[0], f"{axis}axis")
    ends = sorted(shown.get_view_interval())
    said = [t.get_text() for t in shown.get_ticklabels(which="both") if t in words(figure)]
    assert (2 if low < high else 1) <= len(said) <= 8
    assert all(ends[0] <= float(text) <= ends[1] for text in said)
    assert [float(text) for text in said] == pytest.approx(shown.get_majorticklocs(), rel=1e-5)


def test_estimates_are_drawn_with_their_intervals():
    x, as_json = np.arange(3), {"value": 0.5, "low": 0.25, "high": 0.75}
    series = Series.from_estimates(x, [as_json, None, Estimate(1 / 3, 0.0, 1.0)], role="rve")
    assert (series.x is x, series.role) == (True, "rve")
    np.testing.assert_array_equal(series.y, [0.5, np.nan, 1 / 3])
    np.testing.assert_array_equal(series.low, [0.25, np.nan, 0.0])
    np.testing.assert_array_equal(series.high, [0.75, np.nan, 1.0])
    draw({"a": series})
    with pytest.raises(ValueError, match="an estimate with value: expected value, low and high"):
        Series.from_estimates(None, [{"value": 1.0}])
    with pytest.raises(ValueError, match="2 numbers in x for 1 in y: expected as many"):
        Series.from_estimates(["a", "b"], [as_json])


def test_a_line_that_breaks_off_is_named_where_it_ends():
    y = np.array([1.0, 2.0, np.nan, np.nan])
    figure = draw({"short": Series(y), "full": Series(np.array([0.0, 0.0, 0.0, 5.0]))})
    box = words(figure)[label(figure, "short")]
    assert box.y0 < figure.axes[0].transData.transform((1, 2.0))[1] < box.y1


def test_no_data_says_so():
    figure = draw({"RVE": Series(np.full(3, np.nan)), "a": Series(np.ones(3))})
    assert label(figure, "RVE (no data)")


def test_what_series_refuses():
    with pytest.raises(ValueError, match="2 numbers in x for 6 in y: expected as many"):
        Series(Y, ALPHA[:2])
    with pytest.raises(ValueError, match="5 numbers in low for 6 in y"):
        Series(Y, None, Y[:5], Y)
    with pytest.raises(ValueError, match="expected both low and high, or neither"):
        Series(Y, low=Y)
    with pytest.raises(ValueError, match="role 'best': expected one of"):
        Series(Y, role="best")


def test_what_lines_refuses():
    with pytest.raises(ValueError, match="no lines are given: expected at"):
        draw({})
    with pytest.raises(ValueError, match="names on x with numbers or"):
        draw({"a": Series(Y[:1], ["K"]), "b": Series(Y)})
    with pytest.raises(ValueError, match="names on x with numbers or a logarithmic scale"):
        draw({"a": Series(Y[:1], ["K"])}, log="x")
    with pytest.raises(ValueError, match="0 or less on a logarithmic x axis"):
        draw({"a": Series(Y)}, log="x")
    with pytest.raises(ValueError, match="0 or less on a logarithmic y axis"):
        draw({"a": Series(-Y, ALPHA)}, log="y")
