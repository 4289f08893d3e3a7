"""Lines over the values of a parameter, with intervals and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Real
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from rvelens.files.arguments import refuse_wrong_types
from rvelens.plots.style import (
    COLUMN,
    GREY,
    SMALL,
    End,
    Role,
    end_labels,
    figure_of,
    house_style,
    new_figure,
    role,
    wrapped,
)
from rvelens.stats import Estimate

Log = Literal["", "x", "y", "xy"]
_FEW = 12  # Up to so many points have a marker and an error bar each; more have a line and a band.


@refuse_wrong_types
@dataclass(frozen=True, eq=False)
class Series:
    """One line: values over a parameter, with the ends of their intervals if known.

    Attributes:
        y: the values; NaN for a missing value.
        x: the values of the parameter, as numbers or names ("all heads"); None counts from 0.
        low, high: ends of the interval around each value, in the units of y.
        role: a name in `ROLES`, which gives colour, line and marker; "" chooses them by order.
    """

    y: Float[np.ndarray, " point"]
    x: Real[np.ndarray, " x"] | Sequence[str] | None = None
    low: Float[np.ndarray, " low"] | None = None
    high: Float[np.ndarray, " high"] | None = None
    role: str = ""

    def __post_init__(self) -> None:
        for name in ("x", "low", "high"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != len(self.y):
                raise ValueError(
                    f"{len(numbers)} numbers in {name} for {len(self.y)} in y: expected as many; "
                    "pass one for each point."
                )
        if (self.low is None) != (self.high is None):
            raise ValueError(
                "one end of an interval: expected both low and high, or neither; add the other."
            )
        role(self.role)

    @classmethod
    def from_estimates(
        cls,
        x: Real[np.ndarray, " point"] | Sequence[str] | None,
        estimates: Sequence[Mapping[str, float] | Estimate | None],
        role: str = "",
    ) -> Series:
        """A line from estimates with their intervals.

        Args:
            x: as in `Series`.
            estimates: one per point, from `rvelens.stats` or as stored in JSON, {"value", "low",
                "high"}; None for a missing estimate.
            role: as in `Series`.

        Raises:
            ValueError: an estimate that lacks one of the three values, or another number of estimates
                than x.
        """
        rows = [
            asdict(estimate) if isinstance(estimate, Estimate) else estimate
            for estimate in estimates
        ]
        for row in rows:
            if row is not None and not {"value", "low", "high"} <= set(row):
                raise ValueError(
                    f"an estimate with {', '.join(row) or 'nothing'}: expected value, low and "
                    "high; pass None where there is no estimate."
                )
        y, low, high = (
            np.array([np.nan if row is None else row[key] for row in rows], dtype=float)
            for key in ("value", "low", "high")
        )
        return cls(y, x, low, high, role)

    @property
    def names(self) -> list[str] | None:
        """The values of x if they are names."""
        if self.x is None or isinstance(self.x, np.ndarray):
            return None
        return [str(x) for x in self.x]


@refuse_wrong_types
def lines(
    series: Mapping[str, Series],
    *,
    x_label: str,
    y_label: str,
    reference: tuple[str, float] | None = None,
    log: Log = "",
    title: str = "",
    width: float = COLUMN,
    height: float = 2.1,
) -> Figure:
    """Lines with their intervals, each with its name at its end.

    Args:
        series: lines by name.
        x_label, y_label: the labels of the axes, with units.
        reference: name and value of a horizontal line, such as ("vanilla", 0.81).
        log: axes with a logarithmic scale.
        title: above the axes.
        width, height: inches; the figure grows if the names need more height.

    Raises:
        ValueError: no lines, a mix of lines over names and over numbers, or no value above 0 on a
            logarithmic scale.
    """
    with house_style():
        figure, axes = new_figure(width, height, title)
        axes.set(xlabel=x_label, ylabel=y_label)
        draw_lines(axes, series, reference, log)
    return figure


def draw_lines(
    axes: Axes,
    series: Mapping[str, Series],
    reference: tuple[str, float] | None = None,
    log: Log = "",
) -> None:
    """Draw `lines` on existing axes; call it last, under the house style."""
    names, positions = _positions(series, log)
    line_ends = []
    if reference is not None:
        axes.axhline(reference[1], color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    for index, (name, line) in enumerate(series.items()):
        style = role(line.role, index)
        shift = 1.6 * (index - (len(series) - 1) / 2)
        _line(axes, positions[name], line, style, shift)
        line_ends.append(_end(name, positions[name], np.asarray(line.y), style))
    _x_axis(axes, names, np.concatenate(list(positions.values())), log)
    if "y" in log:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)
    if reference is not None:
        line_ends.append(End(reference[0], "#5f5f5f", axes.get_xlim()[1], reference[1]))
    end_labels(axes, line_ends)


def _positions(
    series: Mapping[str, Series], log: Log
) -> tuple[list[str] | None, dict[str, NDArray[np.floating]]]:
    """The names along x, if they are names, and where each line's points lie."""
    if not series:
        raise ValueError("no lines are given: expected at least one; add one.")
    named = {line.names is not None for line in series.values()}
    if len(named) > 1 or (named == {True} and "x" in log):
        raise ValueError(
            "names on x with numbers or a logarithmic scale: expected names for every line and a "
            "linear scale; or pass numbers for every line."
        )
    if named == {True}:
        order = list(dict.fromkeys(x for line in series.values() for x in line.names or []))
        return order, {
            key: np.array([float(order.index(x)) for x in line.names or []])
            for key, line in series.items()
        }
    numbers: dict[str, NDArray[np.floating]] = {
        key: np.asarray(range(len(line.y)) if line.x is None else line.x, dtype=float)
        for key, line in series.items()
    }
    for axis, values in (("x", numbers.values()), ("y", [line.y for line in series.values()])):
        if axis in log and not all((np.asarray(v)[np.isfinite(v)] > 0).all() for v in values):
            raise ValueError(
                f"numbers of 0 or less on a logarithmic {axis} axis: expected numbers above 0; "
                "leave the axis linear."
            )
    return None, numbers


def _line(axes: Axes, x: NDArray[np.floating], line: Series, style: Role, shift: float) -> None:
    few = len(x) <= _FEW
    y = np.asarray(line.y, dtype=float)
    keywords = {
        "color": style.colour,
        "linestyle": style.line,
        "marker": style.marker if few else "",
    }
    if not few:
        alone = _alone(np.isfinite(y))
        axes.plot(x[alone], y[alone], color=style.colour, marker=style.marker, linestyle="")
    if line.low is None or line.high is None:
        axes.plot(x, y, **keywords)
        return
    low, high = np.asarray(line.low, dtype=float), np.asarray(line.high, dtype=float)
    if not few:
        axes.plot(x, y, **keywords)
        axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)
        return
    # Error bars of several lines stand beside one another, or they would hide each other.
    moved = offset_copy(axes.transData, figure_of(axes), shift, 0, units="points")
    axes.plot(x, y, transform=moved, **keywords)
    axes.vlines(x, low, high, color=style.colour, linewidth=0.9, transform=moved)
    axes.update_datalim(np.column_stack([np.tile(x, 3), np.concatenate([y, low, high])]))
    axes.autoscale_view()


def _alone(is_finite: Bool[np.ndarray, " point"]) -> Bool[np.ndarray, " point"]:
    """Points between two that are missing, which no line reaches."""
    padded = np.concatenate([[False], is_finite, [False]])
    return is_finite & ~padded[:-2] & ~padded[2:]


def _end(name: str, x: NDArray[np.floating], y: NDArray[np.floating], style: Role) -> End:
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not finite.size:
        return End(f"{name} (no data)", style.colour, np.nan, np.nan)
    last = finite[np.argmax(x[finite])]
    return End(name, style.colour, float(x[last]), float(y[last]))


def _x_axis(axes: Axes, names: list[str] | None, x: NDArray[np.floating], log: Log) -> None:
    if names is not None:
        _name_settings(axes, names)
        return
    values = np.unique(x[np.isfinite(x)])
    if "x" in log:
        axes.set_xscale("log")
        _log_ticks(axes.xaxis)
        if 0 < len(values) <= 8:
            axes.xaxis.set_major_locator(FixedLocator(values.tolist()))
    elif 0 < len(values) <= 8 and np.allclose(np.diff(values, 2), 0):
        axes.set_xticks(values, [f"{value:g}" for value in values])
    else:
        whole = bool((values == values.round()).all())
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole, steps=[1, 2, 4, 5, 10]))


def _log_ticks(axis: Axis) -> None:
    """Plain numbers at round places, be there a power of ten or not. Limits must be final."""
    low, high = sorted(axis.get_view_interval())
    # Between powers of ten matplotlib would label minor ticks, with formulas.
    round_places = MaxNLocator(5, steps=[1, 2, 5, 10])
    if high / low >= 10:
        round_places = LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,))
    places = np.asarray(round_places.tick_values(low, high))
    axis.set_major_locator(FixedLocator(places[(low <= places) & (places <= high)].tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _name_settings(axes: Axes, names: list[str]) -> None:
    """Names under the axes, in several lines where that makes them fit, slanted where it does not."""
    room = 0.6 * figure_of(axes).get_figwidth() / max(len(names), 1)
    broken = [wrapped(name, room) for name in names]
    words = max((len(line) for name in names for line in name.split()), default=0)
    if words * 0.6 * SMALL < 72 * room:
        axes.set_xticks(range(len(names)), broken)
    else:
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.4, len(names) - 0.6)
