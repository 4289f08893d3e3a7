"""Figures with one row per method: numbers with intervals, and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.plots.style import (
    COLUMN,
    GREY,
    SMALL,
    fix_layout,
    house_style,
    new_figure,
    role,
    wrapped,
)

_LINE = 0.145  # Inches that one line of text takes.


@refuse_wrong_types
@dataclass(frozen=True)
class ScoreRow:
    """One method's number on one benchmark.

    Attributes:
        name: the method.
        value: the measured number; NaN if it was not measured.
        low, high: ends of its interval; NaN if unknown.
        group: the benchmark; rows of a group must be adjacent.
        paper: the paper's number, shown as a hollow dot next to the measured number.
        role: a name in `ROLES`.
    """

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    group: str = ""
    paper: float = float("nan")
    role: str = "plain"


@refuse_wrong_types
def dots(
    rows: Sequence[ScoreRow],
    *,
    x_label: str,
    baseline: str = "",
    digits: int = 3,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """A dot and an interval for each row, grouped under names, with the number at the right.

    Args:
        rows: from top to bottom.
        x_label: the label of the numbers, with units.
        baseline: the name of the row whose value is drawn as a line through its group.
        digits: digits after the point of the numbers at the right.
        title: above the figure.
        width: inches; the height follows from the rows.

    Raises:
        ValueError: no rows, a role that does not exist, or a group whose rows are not adjacent.
    """
    if not rows:
        raise ValueError("no rows are given: expected at least one; add one.")
    groups = [(name, list(members)) for name, members in groupby(rows, key=lambda row: row.group)]
    if len({name for name, _ in groups}) < len(groups):
        raise ValueError("rows of one group are apart: expected adjacent rows; sort them by group.")
    names = {row.name: wrapped(row.name, 0.34 * width) for row in rows}
    heights = {name: text.count("\n") + 1 for name, text in names.items()}
    heads = {name: wrapped(name, 0.55 * width) for name, _ in groups}
    total = sum(heights[row.name] for row in rows) + sum(map(_room, heads.values()))
    with house_style():
        figure, axes = new_figure(width, _LINE * total + 0.75, title)
        top, places = 0.0, []
        for name, members in groups:
            top += _room(heads[name])
            if name:
                axes.annotate(
                    heads[name],
                    (0, top - _room(heads[name]) / 2 + 0.15),
                    (0, 0),
                    xycoords=axes.get_yaxis_transform(),
                    textcoords="offset points",
                    weight="bold",
                    va="center",
                )
            start = top
            for row in members:
                middle = top + heights[row.name] / 2
                _dot(axes, row, middle, digits)
                places.append((middle, names[row.name]))
                top += heights[row.name]
            _baseline(axes, members, baseline, start, top)
        axes.set_ylim(total, 0)
        axes.set_yticks([y for y, _ in places], [text for _, text in places])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(x_label)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        _key(figure, rows)
        fix_layout(figure)
    return figure


def _room(head: str) -> float:
    """Lines that a group's name takes, with some air over it; none where it has no name."""
    return head.count("\n") + 1.3 if head else 0.0


def _dot(axes: Axes, row: ScoreRow, y: float, digits: int) -> None:
    style = role(row.role)
    axes.axhline(y, color="#e6e6e6", linewidth=0.5, zorder=0)
    axes.hlines(y, row.low, row.high, color=style.colour, linewidth=1.1)
    axes.plot(
        row.paper,
        y,
        "o",
        markersize=5.5,
        markerfacecolor="none",
        color="black",
        markeredgewidth=0.7,
    )
    axes.plot(row.value, y, marker=style.marker, color=style.colour, linestyle="")
    number = f"{row.value:.{digits}f}" if np.isfinite(row.value) else "–"
    axes.text(
        1.02,
        y,
        number,
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=SMALL,
        color=style.colour,
    )


def _baseline(
    axes: Axes, members: Sequence[ScoreRow], name: str, top: float, bottom: float
) -> None:
    for row in members:
        if row.name == name and len(members) > 1:
            axes.vlines(
                row.value, top, bottom, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1
            )


def _key(figure: Figure, rows: Sequence[ScoreRow]) -> None:
    """Said only where there is something to tell apart."""
    if not any(np.isfinite(row.paper) for row in rows):
        return
    hollow = Line2D(
        [],
        [],
        marker="o",
        markersize=5.5,
        markerfacecolor="none",
        color="black",
        linestyle="",
        markeredgewidth=0.7,
    )
    full = Line2D([], [], marker="o", color=role("plain").colour, linewidth=1.1)
    figure.legend(
        [full, hollow],
        ["measured, with interval", "paper"],
        loc="outside lower center",
        ncols=2,
    )


@refuse_wrong_types
def timing_bars(
    names: Sequence[str],
    first: Float[np.ndarray, " method"],
    rest: Float[np.ndarray, " method"],
    *,
    baseline: str = "vanilla",
    ratios: Float[np.ndarray, " method"] | None = None,
    low: Float[np.ndarray, " method"] | None = None,
    high: Float[np.ndarray, " method"] | None = None,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """Seconds per example by method, as stacked bars: first token, rest of the answer (Fig. 9b).

    Args:
        names: the methods, from top to bottom.
        first: seconds to the first token.
        rest: seconds for all later tokens.
        baseline: the method that the printed ratios are relative to.
        ratios: the ratio of each method to the baseline, such as medians over rounds; None divides the
            sums.
        low, high: the interval of each method's sum, in seconds.
        title: above the figure.
        width: inches; the height follows from the methods.

    Raises:
        ValueError: another number of values than methods, or a baseline that is not one of the methods.
    """
    lengths = {len(a) for a in (first, rest, ratios, low, high) if a is not None}
    if lengths != {len(names)} or not names:
        raise ValueError(
            f"{counted(len(names), 'method')} and "
            f"{' or '.join(map(str, sorted(lengths)))} numbers: expected "
            "one number for each method, and at least one method; add what is missing."
        )
    if ratios is None:
        ratios = _ratios(names, np.asarray(first) + np.asarray(rest), baseline)
    totals = np.nan_to_num(first) + np.nan_to_num(rest)
    if high is not None:
        totals = np.fmax(totals, high)
    unit, scale = ("milliseconds", 1000.0) if 0 < totals.max() < 0.5 else ("seconds", 1.0)
    labels = [wrapped(name, 0.3 * width) for name in names]
    height = _LINE * sum(max(label.count("\n") + 1, 1.35) for label in labels) + 0.85
    with house_style():
        figure, axes = new_figure(width, height, title)
        _stacked(axes, scale * np.asarray(first), scale * np.asarray(rest))
        y = np.arange(len(names))
        if low is not None and high is not None:
            axes.hlines(y, scale * low, scale * high, color="black", linewidth=0.9)
        for place, end, ratio in zip(y, scale * totals, ratios, strict=True):
            text = f"{ratio:.2f}×" if np.isfinite(ratio) else "not measured"
            axes.annotate(
                text, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
        axes.set(yticks=y, yticklabels=labels, xlabel=f"{unit} for an example, and × {baseline}")
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1.2 * scale * totals.max() or 1), ylim=(len(y) - 0.5, -0.5))
        figure.legend(loc="outside lower center", ncols=2)
        fix_layout(figure)
    return figure


def _ratios(
    names: Sequence[str], total: Float[np.ndarray, " method"], baseline: str
) -> Float[np.ndarray, " method"]:
    if baseline not in names:
        raise ValueError(
            f"baseline {baseline!r} is not among the methods: expected one of {', '.join(names)}; "
            "or pass the ratios."
        )
    return total / total[list(names).index(baseline)]


def _stacked(
    axes: Axes, first: Float[np.ndarray, " method"], rest: Float[np.ndarray, " method"]
) -> None:
    y, early = np.arange(len(first)), role("control").colour
    first, rest = np.nan_to_num(first), np.nan_to_num(rest)
    axes.barh(y, first, height=0.66, color=early, label="first token")
    axes.barh(
        y,
        rest,
        left=first,
        height=0.66,
        facecolor="#a9cbe8",
        edgecolor=early,
        hatch="////",
        linewidth=0,
        label="rest of the answer",
    )
