"""The house style of figures: sizes, colours by role, labels at line ends, files.

Figures are made under `house_style()`, whatever style the caller has set. Their layout is fixed before
they are returned, because later drawing no longer has these style settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import write_bytes

COLUMN, PAGE = 3.35, 6.9  # Widths in inches of a column and of a page of a two-column paper.
TEXT, SMALL = 8.0, 7.0  # Points; nothing but numbers in cells is smaller.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "figure.titlesize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.4,
    # Questions and names of models hold dollars and underscores; none is a formula.
    "text.parse_math": False,
}
_SHOWN_DPI = 130  # In a notebook: text of 8 points is then as large as the text around it.
FORMATS = (".png", ".pdf", ".svg")
_BREAK = re.compile(r"(?<=\s)(?=\S)|(?<=\w/)(?=\w)|(?<=[^\W\d]-)(?=\w)")
GREY = "#8a8a8a"  # What is not data: leaders, reference lines, empty cells.


@dataclass(frozen=True)
class Role:
    """The look of a role: a colour and, for readers who do not see colours, a line and a marker."""

    colour: str
    line: Any = "-"
    marker: str = "o"
    hatch: str = ""


# Every colour is legible as text on white, and all differ under each kind of colour blindness.
ROLES = {
    "plain": Role("#3c3c3c", (0, (1, 1)), "o"),
    "rve": Role("#d55e00", "-", "D"),
    "control": Role("#0b5fa5", (0, (5, 1.5)), "s"),
    "oracle": Role("#00806a", (0, (6, 1.5, 1, 1.5)), "^"),
    "random": Role("#b5559c", (0, (3, 1)), "v"),
    "least": Role("#3d93cf", (0, (4, 1, 1, 1, 1, 1)), "P"),
    "text": Role("#0b5fa5", (0, (5, 1.5)), "s", "////"),
    "image": Role("#d55e00", "-", "D"),
}
_UNNAMED = ("rve", "control", "oracle", "random", "least", "plain")


def role(name: str, index: int = 0) -> Role:
    """The look of a role; without a name, that of the series with number `index`.

    Raises:
        ValueError: no such role.
    """
    if name and name not in ROLES:
        raise ValueError(
            f"role {name!r}: expected one of {', '.join(ROLES)}; leave it out to color by order."
        )
    return ROLES[name or _UNNAMED[index % len(_UNNAMED)]]


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot, which IPython needs for other figures."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The picture at twice the resolution that it is shown at, and its size in pixels there."""
        file = BytesIO()
        with house_style():
            self.savefig(file, format="png", dpi=2 * _SHOWN_DPI)
        width, height = (round(inches * _SHOWN_DPI) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


@contextmanager
def house_style() -> Iterator[None]:
    """A context with matplotlib's defaults and `STYLE`."""
    with style.context(["default", STYLE]):
        yield


@refuse_wrong_types
def new_figure(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """A figure with one open axes, and a wrapped title that adds its height to the figure."""
    title = wrapped(title, width - 0.1, TEXT)
    height += 0.14 * len(title.splitlines())
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    return figure, axes


def wrapped(text: str, inches: float, size: float = SMALL) -> str:
    """Text broken into lines of at most a given width, estimated by the mean width of a letter.

    Names of models break after a slash, or after a hyphen between words. A longer word is cut.
    """
    letters = max(int(inches * 72 / (0.6 * size)), 6)
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _BREAK.split(paragraph):
            if line and len(line + piece.rstrip()) > letters:
                lines.append(line.rstrip())
                line = ""
            line += piece
            while len(line.rstrip()) > letters:
                lines.append(line[:letters])
                line = line[letters:]
        lines.append(line.rstrip())
    return "\n".join(lines)


def figure_of(axes: Axes) -> Figure:
    """The figure of the axes, also if they are in a subfigure."""
    figure: Any = axes.get_figure()
    while not isinstance(figure, Figure):
        figure = figure._parent
    return figure


def fix_layout(figure: Figure) -> None:
    """Lay out a figure, and keep the ticks of this layout.

    A later layout would choose new ticks after it has made room for the labels of the old ones.
    """
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            free = not isinstance(axis.get_major_locator(), FixedLocator | NullLocator)
            if free and axes.get_label() != "<colorbar>":
                axis.set_major_locator(FixedLocator(axis.get_majorticklocs().tolist()))


def panel_letter(axes: Axes, letter: str, name: str = "", lift: float = 3.0) -> None:
    """A panel's letter and name in bold at its upper left, `lift` points above its frame.

    It is not part of the layout, because a long name must not push panels apart. Leave room above.
    """
    axes.annotate(
        f"{letter}  {name}".strip(),
        (0, 1),
        (0, lift),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        weight="bold",
        in_layout=False,
    )


def ticks(n: int) -> list[int]:
    """At most nine round positions from 0 to n - 1."""
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 50, 100, 200, 500, n) if n / s <= 9)
    return list(range(0, n, step))


def scale_above(figure: Figure, axes: Axes, mappable: ScalarMappable, label: str, **more: Any):
    """A thin colour scale over the axes, with a label; returns the colour bar."""
    more = {"ticks": MaxNLocator(6, steps=[1, 2, 5, 10]), **more}
    bar = figure.colorbar(mappable, ax=axes, location="top", aspect=30, pad=0.02, **more)
    bar.set_label(wrapped(label, 0.8 * figure.get_figwidth(), TEXT))
    bar.minorticks_off()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return bar


@dataclass(frozen=True)
class End:
    """The end of a line, in data coordinates, and the text of its label."""

    text: str
    colour: str
    x: float
    y: float


def end_labels(axes: Axes, line_ends: Sequence[End]) -> None:
    """Label lines at the right of the axes, each as close to the end of its line as possible.

    The figure grows if the labels do not fit next to its axes. The limits of the axes must be final.
    """
    figure = figure_of(axes)
    right = axes.get_xlim()[1]
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    for end in line_ends:
        axes.plot([end.x, right], [end.y, end.y], color=end.colour, linewidth=0.5, linestyle=":")
    notes = [_note(axes, end, figure.get_figwidth()) for end in line_ends]
    fix_layout(figure)
    # Two points apart: lines of different labels must not read as one label.
    gap = 2 * figure.dpi / 72
    heights = np.array([Text.get_window_extent(note).height + gap for note in notes])  # no leaders
    missing = heights.sum() - axes.bbox.height
    if missing > 0:
        figure.set_figheight(figure.get_figheight() + 1.05 * missing / figure.dpi)
        figure.draw_without_rendering()
    to_axes = axes.transData + axes.transAxes.inverted()
    centres = np.array([to_axes.transform((right, end.y))[1] for end in line_ends])
    centres = np.nan_to_num(centres.clip(0, 1))
    placed = place_labels(centres, heights / axes.bbox.height)
    for note, at, label in zip(notes, centres, placed, strict=True):
        note.xy = (1, at)
        note.set_position((1, label))


def _note(axes: Axes, end: End, width: float) -> Annotation:
    return axes.annotate(
        wrapped(end.text, 0.29 * width),
        (1, 0.5),
        (1, 0.5),
        xycoords="axes fraction",
        textcoords=offset_copy(axes.transAxes, figure_of(axes), 9, 0, units="points"),
        color=end.colour,
        fontsize=SMALL,
        va="center",
        linespacing=1.05,
        annotation_clip=False,
        arrowprops={
            "arrowstyle": "-",
            "color": end.colour,
            "linewidth": 0.5,
            "shrinkA": 1,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        },
    )


def place_labels(
    centres: Float[np.ndarray, " label"], heights: Float[np.ndarray, " label"]
) -> Float[np.ndarray, " label"]:
    """Centres of labels between 0 and 1 that do not overlap, closest to the wanted centres.

    They minimise the sum of squared moves and keep the order. After subtraction of the heights below
    each label, labels that do not overlap are ascending numbers. So the solution is an isotonic
    regression. The sum of all heights must be at most 1.
    """
    if not len(centres):
        return centres
    order = np.argsort(centres, kind="stable")
    offsets = np.cumsum(heights[order]) - heights[order] / 2
    room = max(1 - float(heights.sum()), 0.0)
    bottom = isotonic_regression(centres[order] - offsets).x.clip(0, room)
    placed = np.empty_like(centres)
    placed[order] = bottom + offsets
    return placed


@refuse_wrong_types
def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF (with embedded fonts) or SVG, according to the file name.

    The same figure gives the same bytes, without dates or random names. An existing file is replaced.

    Raises:
        ValueError: another ending, a folder that does not exist, or the name of a folder.
        OSError: the file cannot be written; the error names it.
    """
    check_figure_path(path)
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    fonts: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "rvelens"}
    ending, content = Path(path).suffix.lower(), BytesIO()
    with style.context(["default", STYLE, fonts]):
        figure.savefig(content, format=ending[1:], dpi=300, metadata=dates.get(ending))
    write_bytes(path, content.getvalue())


@refuse_wrong_types
def check_figure_path(path: str | Path) -> None:
    """Raise ValueError for a path that `save_figure` cannot write, before anything is computed."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path}: expected a file name that ends in {', '.join(FORMATS)}; rename it."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"no folder {path.parent}: expected an existing folder for {path.name}; create it "
            "first."
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected a file name; choose another.")
