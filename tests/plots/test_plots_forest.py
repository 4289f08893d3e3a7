"""Panels of estimates: what is drawn, what is full and hollow, and what is refused."""

from __future__ import annotations

import pytest
from figure_checks import check_words
from matplotlib.lines import Line2D

from rvelens.plots import Panel, forest


def estimate(value, spread=0.05):
    return {"value": value, "low": value - spread, "high": value + spread}


ROWS = ["ars", "ars-renormalised", "random"]
PANELS = [
    Panel("region AUC of first heads", [estimate(0.7), estimate(0.52), None], 0.5),
    Panel("change of accuracy by tuned RVE", [estimate(-0.1), estimate(0.01), estimate(0.0)]),
    Panel("share", [estimate(0.2), estimate(0.4), estimate(0.3)], None),
]


def dots(axes):
    lines = (line for line in axes.findobj(Line2D) if len(line.get_xdata()) == 1)
    return [line for line in lines if line.get_marker() in ("D", "v")]


def test_dots_are_full_where_chance_is_excluded():
    figure = forest(ROWS, PANELS, controls=("random",))
    found = [[dot.get_markerfacecolor() != "white" for dot in dots(axes)] for axes in figure.axes]
    assert found == [[True, False], [True, False, False], [True, True, True]]
    assert [dot.get_marker() for dot in dots(figure.axes[1])] == ["D", "D", "v"]
    assert [dot.get_xdata()[0] for dot in dots(figure.axes[0])] == [0.7, 0.52]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ROWS
    check_words(figure)


def test_intervals_and_chance_are_in_sight():
    for axes, panel in zip(forest(ROWS, PANELS).axes, PANELS, strict=True):
        low, high = axes.get_xlim()
        ends = [one[end] for one in panel.estimates if one for end in ("low", "high")]
        assert low < min([*ends, *([panel.chance] if panel.chance is not None else [])])
        assert high > max(ends)


def test_a_panel_without_any_estimate_is_drawn():
    check_words(forest(ROWS, [Panel("nothing", [None] * 3), PANELS[0]], title="a title"))


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="0 rows in 3 panels: expected at least one"):
        forest([], PANELS)
    with pytest.raises(ValueError, match="3 estimates of region AUC of first heads for 2 rows"):
        forest(ROWS[:2], PANELS)
