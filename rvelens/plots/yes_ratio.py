"""Accuracy over how often a method says yes, one point a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rvelens.files.arguments import refuse_wrong_types
from rvelens.plots.style import (
    COLUMN,
    GREY,
    SMALL,
    End,
    Role,
    end_labels,
    house_style,
    new_figure,
    role,
)

_ROLES = {"vanilla": "plain", "rve": "rve"}
_OTHERS = ("control", "oracle", "random", "least")


def role_of_method(name: str, number: int) -> Role:
    """The look of a method among several; `number` is its place, which decides for most."""
    return role(_ROLES.get(name, _OTHERS[number % len(_OTHERS)]))


def with_yes_ratio(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The methods whose figures have both accuracy and yes-ratio."""
    return {name: row for name, row in methods.items() if row["accuracy"] and row["yes_ratio"]}


@refuse_wrong_types
def yes_ratio_points(
    methods: Mapping[str, Mapping[str, Any]],
    share_of_yes: float,
    *,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """Each method's accuracy over its yes-ratio, with both intervals.

    Args:
        methods: figures by method, as in the report of `rvelens eval`; methods without accuracy or
            yes-ratio are left out.
        share_of_yes: how often yes is the right answer, drawn as an upright line.
        title: above the axes.
        width: inches.

    Raises:
        ValueError: no method has both figures.
    """
    rows = with_yes_ratio(methods)
    if not rows:
        raise ValueError(
            "no method has accuracy and yes-ratio: expected figures of yes/no questions; choose "
            "another benchmark."
        )
    with house_style():
        figure, axes = new_figure(width, 2.4, title)
        axes.set(xlabel="share of questions answered yes", ylabel="accuracy")
        _share_line(axes, share_of_yes)
        line_ends = [_point(axes, name, n, row) for n, (name, row) in enumerate(rows.items())]
        end_labels(axes, line_ends)
    return figure


def _share_line(axes: Axes, share_of_yes: float) -> None:
    """Where a method that says yes as often as it is right would stand."""
    axes.axvline(share_of_yes, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.annotate(
        "yes is right",
        (share_of_yes, 0),
        (3, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        color="#5f5f5f",
        fontsize=SMALL,
        bbox={"fc": "white", "ec": "none", "pad": 0.4, "alpha": 0.8},
    )


def _point(axes: Axes, name: str, number: int, row: Mapping[str, Any]) -> End:
    """Draw a method; gives where its label points to."""
    style, across, up = role_of_method(name, number), row["yes_ratio"], row["accuracy"]
    x, y = across["value"], up["value"]
    axes.hlines(y, across["low"], across["high"], color=style.colour, linewidth=1.0)
    axes.vlines(x, up["low"], up["high"], color=style.colour, linewidth=1.0)
    axes.plot(x, y, marker=style.marker, color=style.colour, linestyle="")
    return End(name, style.colour, x, y)
