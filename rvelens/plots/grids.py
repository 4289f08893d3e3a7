"""Heat maps of two parameters, and of bands of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Real
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from rvelens.files.arguments import refuse_wrong_types
from rvelens.plots.style import (
    COLUMN,
    GREY,
    SMALL,
    fix_layout,
    house_style,
    new_figure,
    scale_above,
    ticks,
)

Text = Callable[[float], str]


@dataclass(frozen=True)
class Mark:
    """A cell to mark, its name, and whether it is the best cell, which has its own style."""

    row: int
    column: int
    text: str
    best: bool = False


@refuse_wrong_types
def surface(
    x: Real[np.ndarray, " x"],
    y: Real[np.ndarray, " y"],
    z: Float[np.ndarray, "y x"],
    *,
    x_label: str,
    y_label: str,
    z_label: str,
    paper: tuple[float, float] | None = None,
    centre: float | None = None,
    digits: int = 3,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """A measure over two parameters, with numbers in cells, and the best and the paper's cell framed.

    Args:
        x, y: values of the parameters, such as alpha and beta.
        z: the measure; NaN if it was not measured.
        x_label, y_label, z_label: their labels, with units.
        paper: the paper's setting as (x, y).
        centre: the middle of a diverging colour scale, such as vanilla's value; None for a scale from
            low to high.
        digits: digits after the point. Numbers that would not fit into their cells are left out.
        title: above the figure.
        width: inches.

    Raises:
        ValueError: shapes that do not match, or a paper's setting that is not in x and y.
    """
    x, y, z = np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.asarray(z, dtype=float)
    if z.shape != (len(y), len(x)):
        raise ValueError(
            f"z of shape {z.shape} over {len(y)} y and {len(x)} x: expected ({len(y)}, {len(x)}); "
            "pass one row for each y."
        )
    text = _numeral(digits, signed=centre == 0)
    marks = [Mark(*cell, f"best: {text(z[cell])}", best=True) for cell in _best(z)]
    if paper is not None:
        column, row = _nearest(x, paper[0], "x"), _nearest(y, paper[1], "y")
        marks.append(Mark(row, column, f"paper's setting: {text(z[row, column])}"))
    with house_style():
        figure, axes = new_figure(width, float(np.clip(0.24 * len(y) + 1.4, 1.9, 7.0)), title)
        drawn = _heat(axes, z, centre)
        numbered = _numbers(axes, drawn, z, text, width)
        axes.set_xticks(range(len(x)), [f"{value:g}" for value in x])
        axes.set_yticks(range(len(y)), [f"{value:g}" for value in y])
        axes.set(xlabel=x_label, ylabel=y_label)
        scale_above(figure, axes, drawn, z_label)
        _point_out(axes, marks, framed=numbered)
        _key(figure, marks, "outside lower center")
        fix_layout(figure)
    return figure


@refuse_wrong_types
def bands(
    gain: Float[np.ndarray, "layer layer"],
    *,
    preset: tuple[int, int] | None = None,
    label: str = "gain in accuracy over vanilla",
    digits: int = 3,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """The gain of every band of adjacent layers, as a triangle over first and last layer.

    Args:
        gain: [first last]; values below the diagonal are ignored, and NaN means not measured.
        preset: first and last layer of the preset. The preset and the best band are framed.
        label: the label of the gain.
        digits: digits after the point. Numbers that would not fit into their cells are left out.
        title: above the figure.
        width: inches.

    Raises:
        ValueError: `gain` is not square, or the preset is outside of it.
    """
    n = len(gain)
    if gain.shape != (n, n):
        raise ValueError(
            f"gains of shape {gain.shape}: expected a square, [first layer, last layer]; pass one."
        )
    if preset is not None and not 0 <= preset[0] <= preset[1] < n:
        raise ValueError(
            f"preset {preset} among {n} layers: expected first and last layer, 0 to {n - 1}; "
            "correct them."
        )
    upper = np.triu(np.ones((n, n), dtype=bool)).T  # rows are last layers
    values = np.where(upper, np.asarray(gain, dtype=float).T, np.nan)
    text = _numeral(digits, signed=True)
    marks = [
        Mark(*cell, f"best: {_band(*cell)}, {text(values[cell])}", best=True)
        for cell in _best(values)
    ]
    if preset is not None:
        cell = preset[1], preset[0]
        marks.append(Mark(*cell, f"preset: {_band(*cell)}, {text(values[cell])}"))
    with house_style():
        figure, axes = new_figure(width, width * 0.93, title)
        drawn = _heat(axes, values, 0.0, ~upper)
        numbered = _numbers(axes, drawn, values, text, width)
        edge = np.arange(n + 1) - 0.5
        axes.step(edge, edge, where="post", color=GREY, linewidth=0.6)
        axes.set(xlabel="first layer", ylabel="last layer", xticks=ticks(n), yticks=ticks(n))
        scale_above(figure, axes, drawn, label)
        _point_out(axes, marks, framed=numbered)
        # The corner below the diagonal is empty; in few layers it is too small for words.
        inside = n >= 6
        _key(axes if inside else figure, marks, "lower right" if inside else "outside lower center")
        fix_layout(figure)
    return figure


def _band(last: int, first: int) -> str:
    return f"layer {first}" if first == last else f"layers {first}–{last}"


def _numeral(digits: int, *, signed: bool) -> Text:
    """How numbers are written: NaN in words, minus as wide as plus."""

    def text(value: float) -> str:
        if not np.isfinite(value):
            return "not measured"
        return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")

    return text


def _nearest(settings: Float[np.ndarray, " x"], setting: float, name: str) -> int:
    indices = np.flatnonzero(np.isclose(settings, setting))
    if not indices.size:
        raise ValueError(
            f"the paper's {setting:g} is not among {name}: expected one of "
            f"{', '.join(f'{value:g}' for value in settings)}; leave `paper` out otherwise."
        )
    return int(indices[0])


def _heat(
    axes: Axes,
    values: Float[np.ndarray, "y x"],
    centre: float | None,
    outside: Bool[np.ndarray, "y x"] | None = None,
) -> AxesImage:
    """The cells, lowest row at the bottom; hatched where there is no number, blank outside."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if centre is not None:
        half = max(abs(high - centre), abs(low - centre)) or 1.0
        low, high = centre - half, centre + half
    scale = Normalize(low, high if high > low else low + 1.0)
    drawn = axes.imshow(
        values,
        cmap="cividis" if centre is None else "RdBu",
        norm=scale,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
    )
    empty = ~np.isfinite(values) & (True if outside is None else ~outside)
    for row, column in np.argwhere(empty):
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                facecolor="white",
                edgecolor=GREY,
                hatch="/////",
                linewidth=0,
            )
        )
    return drawn


def _numbers(
    axes: Axes, drawn: AxesImage, values: Float[np.ndarray, "y x"], text: Text, width: float
) -> bool:
    """Each cell's number in it, if all of them fit; whether they do."""
    finite = np.isfinite(values)
    longest = max((len(text(float(value))) for value in values[finite]), default=1)
    room = 72 * (width - 0.6) / values.shape[1] - 2
    size = min(SMALL, room / (0.62 * longest))
    if size < 6:
        return False
    for row, column in np.argwhere(finite):
        colour = np.array(drawn.cmap(drawn.norm(values[row, column]))[:3])
        # Relative luminance; at 0.18 black and white stand out from it equally.
        light = colour**2.2 @ [0.2126, 0.7152, 0.0722] > 0.18
        axes.text(
            column,
            row,
            text(float(values[row, column])),
            ha="center",
            va="center",
            fontsize=size,
            color="black" if light else "white",
            in_layout=False,  # Inside of the axes; hundreds of texts would slow the layout down.
        )
    return True


def _best(values: Float[np.ndarray, "y x"]) -> list[tuple[int, int]]:
    """Row and column of the largest number, if there is any."""
    if not np.isfinite(values).any():
        return []
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return [(int(row), int(column))]


def _key(where: Figure | Axes, marks: Sequence[Mark], place: Any) -> None:
    """What the marks are."""
    if marks:
        where.legend(loc=place, handlelength=1.2, handleheight=1.2, borderpad=0.2)


def _point_out(axes: Axes, marks: Sequence[Mark], *, framed: bool) -> None:
    """Frames around cells that hold numbers, rings around cells too small for any."""
    ring = [withStroke(linewidth=2.4, foreground="white")]
    for mark in marks:
        if not framed:
            axes.plot(
                mark.column,
                mark.row,
                "o" if mark.best else "D",
                markersize=7 if mark.best else 5,
                markerfacecolor="none",
                color="black",
                path_effects=ring,
                clip_on=False,
                label=mark.text,
                linestyle="",
            )
            continue
        # The other frame is smaller, as one cell can be both; less so across, where numbers are.
        x, y = (0.5, 0.5) if mark.best else (0.45, 0.37)
        axes.add_patch(
            Rectangle(
                (mark.column - x, mark.row - y),
                2 * x,
                2 * y,
                fill=False,
                linewidth=1.2 if mark.best else 0.9,
                linestyle="-" if mark.best else "--",
                path_effects=ring,
                clip_on=False,
                zorder=3,
                label=mark.text,
            )
        )
