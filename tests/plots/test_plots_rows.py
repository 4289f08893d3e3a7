"""Rows: each number beside its method, the paper's hollow, ratios at the ends of bars."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import label

from rvelens.plots import ScoreRow, dots, timing_bars

NAN = float("nan")
ROWS = [
    ScoreRow("vanilla", 0.70, 0.68, 0.72, "POPE", paper=0.81),
    ScoreRow("RVE", 0.75, 0.73, 0.77, "POPE", paper=0.85, role="rve"),
    ScoreRow("vanilla", 0.60, 0.58, 0.62, "AMBER"),
    ScoreRow("VCD", NAN, group="AMBER"),
]


def segments(axes):
    """Every horizontal and vertical line between two points, without those to NaN."""
    return [s for lines in axes.collections for s in lines.get_segments() if np.shape(s) == (2, 2)]


def test_each_row_has_its_dot_its_interval_and_its_number():
    figure = dots(ROWS, x_label="accuracy")
    axes = figure.axes[0]
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names == ["vanilla", "RVE", "vanilla", "VCD"]
    for row, y in zip(ROWS[:3], axes.get_yticks(), strict=False):
        at = [line for line in axes.lines if list(line.get_ydata()) == [y]]
        assert {float(line.get_xdata()[0]) for line in at if line.get_xdata()[0] > 0} >= {row.value}
        (text,) = [t for t in axes.texts if t.get_position() == (1.02, y)]
        assert text.get_text() == f"{row.value:.3f}"
    spans = {tuple(segment[:, 0]) for segment in segments(axes)}
    assert {(0.68, 0.72), (0.73, 0.77), (0.58, 0.62)} <= spans
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert label(figure, "POPE").get_weight() == "bold"


def test_the_papers_number_is_hollow_and_said_so_only_where_there_is_one():
    figure = dots(ROWS, x_label="accuracy")
    hollow = [x for x in figure.axes[0].lines if x.get_markerfacecolor() == "none"]
    assert {float(line.get_xdata()[0]) for line in hollow} >= {0.81, 0.85}
    assert label(figure, "paper")
    assert not dots(ROWS[2:], x_label="accuracy").legends


def test_the_baseline_runs_through_its_group():
    axes = dots(ROWS, x_label="accuracy", baseline="vanilla").axes[0]
    levels = [s for s in segments(axes) if s[0, 0] == s[1, 0]]
    assert [s[0, 0] for s in levels] == [0.70, 0.60]
    first = axes.get_yticks()[:2]
    assert levels[0][0, 1] < first[0] < first[1] < levels[0][1, 1] < levels[1][0, 1]


def test_what_dots_refuses():
    with pytest.raises(ValueError, match="no rows are given: expected at"):
        dots([], x_label="")
    with pytest.raises(ValueError, match="rows of one group are apart: expected adjacent rows"):
        dots([ROWS[0], ROWS[2], ROWS[1]], x_label="")
    with pytest.raises(ValueError, match="role 'best': expected one of"):
        dots([ScoreRow("a", 0.5, role="best")], x_label="")


FIRST, REST = np.array([2.0, 3.0, 0.5]), np.array([1.0, 3.0, np.nan])


def test_seconds_are_stacked_and_ratios_are_at_the_ends():
    figure = timing_bars(["vanilla", "VCD", "ICD"], FIRST, REST)
    axes = figure.axes[0]
    first, rest = axes.containers
    assert [bar.get_width() for bar in first] == [2.0, 3.0, 0.5]
    assert [(bar.get_x(), bar.get_width()) for bar in rest] == [(2.0, 1.0), (3.0, 3.0), (0.5, 0.0)]
    assert [t.get_text() for t in axes.texts] == ["1.00×", "2.00×", "not measured"]
    assert [t.xy for t in axes.texts] == [(3.0, 0), (6.0, 1), (0.5, 2)]
    assert axes.get_xlabel() == "seconds for an example, and × vanilla"


def test_measured_ratios_and_intervals_are_shown_as_given():
    low, high = np.array([2.9, 5.5, 4.0]), np.array([3.2, 6.5, 5.0])
    figure = timing_bars(
        ["vanilla", "VCD", "ICD"],
        FIRST,
        REST,
        ratios=np.array([1.0, 1.9, 1.5]),
        low=low,
        high=high,
        baseline="plain SDPA",
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == ["1.00×", "1.90×", "1.50×"]
    spans = [segment[:, 0] for segment in segments(axes)]
    np.testing.assert_allclose(spans, np.column_stack([low, high]))
    assert [t.xy[0] for t in axes.texts] == [3.2, 6.5, 5.0]


def test_short_times_are_milliseconds():
    axes = timing_bars(["vanilla"], np.array([0.03]), np.array([0.01])).axes[0]
    assert axes.get_xlabel().startswith("milliseconds")
    assert axes.containers[0][0].get_width() == pytest.approx(30)


def test_what_timing_refuses():
    with pytest.raises(ValueError, match="2 methods and 3 numbers: expected one number for each"):
        timing_bars(["vanilla", "VCD"], FIRST, REST)
    with pytest.raises(ValueError, match="baseline 'vanilla' is not among the methods"):
        timing_bars(["a", "b", "c"], FIRST, REST)
    with pytest.raises(ValueError, match="at least one method"):
        timing_bars([], np.zeros(0), np.zeros(0))
