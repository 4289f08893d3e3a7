"""Several kinds of estimates side by side, with one row for each compared method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.plots.style import (
    GREY,
    PAGE,
    SMALL,
    TEXT,
    NotebookFigure,
    fix_layout,
    house_style,
    role,
    wrapped,
)


@refuse_wrong_types
@dataclass(frozen=True)
class Panel:
    """One kind of estimate, for every row.

    Attributes:
        name: the label of the axis, with units.
        estimates: {"value", "low", "high"} for each row; None if there is no estimate.
        chance: the value that chance would give; None if there is no such value.
    """

    name: str
    estimates: Sequence[Mapping[str, float] | None]
    chance: float | None = 0.0


@refuse_wrong_types
def forest(
    rows: Sequence[str],
    panels: Sequence[Panel],
    *,
    controls: Sequence[str] = (),
    title: str = "",
    width: float = PAGE,
) -> Figure:
    """Panels side by side over the same rows: a dot, its interval, and a line at chance.

    A dot is filled if its interval excludes chance, and hollow if it does not.

    Args:
        rows: names, from top to bottom.
        panels: from left to right.
        controls: the names of rows that are drawn as controls.
        title: above the figure.
        width: inches; the height follows from the rows.

    Raises:
        ValueError: no rows or panels, or another number of estimates than rows.
    """
    if not rows or not panels:
        raise ValueError(
            f"{counted(len(rows), 'row')} in {counted(len(panels), 'panel')}: expected at "
            "least one of "
            "each; add what is missing."
        )
    for panel in panels:
        if len(panel.estimates) != len(rows):
            raise ValueError(
                f"{counted(len(panel.estimates), 'estimate')} of {panel.name} for "
                f"{counted(len(rows), 'row')}: expected "
                "one for each row; pass None for an unknown one."
            )
    with house_style():
        height = 0.2 * len(rows) + 0.75
        figure = NotebookFigure(figsize=(width, height), layout="constrained")
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(every, panels, strict=True):
            _panel(axes, panel, [name in controls for name in rows])
            axes.set_xlabel(wrapped(panel.name, 0.8 * width / len(panels), TEXT))
        every[0].set_ylim(len(rows) - 0.5, -0.5)
        every[0].set_yticks(range(len(rows)), list(rows))
        if title:
            figure.suptitle(wrapped(title, width - 0.1, TEXT))
        fix_layout(figure)
    return figure


def _panel(axes: Axes, panel: Panel, controls: Sequence[bool]) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if panel.chance is not None:
        axes.axvline(panel.chance, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    for y, (estimate, is_control) in enumerate(zip(panel.estimates, controls, strict=True)):
        axes.axhline(y, color="#ececec", linewidth=0.5, zorder=-1)
        if estimate is None:
            axes.annotate(
                "–", (0.5, y), xycoords=axes.get_yaxis_transform(), va="center", color=GREY
            )
            continue
        style = role("random" if is_control else "rve")
        sure = panel.chance is None or not estimate["low"] <= panel.chance <= estimate["high"]
        axes.hlines(y, estimate["low"], estimate["high"], color=style.colour, linewidth=1.1)
        axes.plot(
            estimate["value"],
            y,
            style.marker,
            color=style.colour,
            markerfacecolor=style.colour if sure else "white",
            markersize=4,
        )
    if all(estimate is None for estimate in panel.estimates):
        axes.set_xticks([])
        return
    limits = [estimate[end] for estimate in panel.estimates if estimate for end in ("low", "high")]
    low, high = min(limits), max(limits)
    if panel.chance is not None:
        low, high = min(low, panel.chance), max(high, panel.chance)
    margin = 0.06 * (high - low) or 0.01
    axes.set_xlim(low - margin, high + margin)
    axes.tick_params(axis="x", labelsize=SMALL)
