"""Many small pictures in one figure: every head of a model, every token of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rvelens.files.arguments import refuse_wrong_types
from rvelens.model.prompts import ImageLike
from rvelens.model.trace import Trace, TracedAnswer
from rvelens.plots.image import small_picture
from rvelens.plots.style import (
    PAGE,
    SMALL,
    NotebookFigure,
    figure_of,
    fix_layout,
    house_style,
    new_figure,
    ticks,
    wrapped,
)
from rvelens.tokens.grid import ImageGrid
from rvelens.tokens.heat import heated

_CELL, _GAP = 64, 3  # Pixels of the longer edge of a head's picture, and between two of them.
_PANEL = 160  # Pixels of the longer edge of a token's picture.
_IN_A_ROW, _MOST_TOKENS = 8, 48


@refuse_wrong_types
def head_grid(
    image: ImageLike,
    values: Float[np.ndarray, "layer head image"],
    grid: ImageGrid,
    *,
    layers: Sequence[int] | None = None,
    top: float | None = None,
    title: str = "",
    label: str = "attention",
    ax: Axes | None = None,
) -> Figure:
    """Where every head looks: a grid of small overlays, with layers as rows and heads as columns.

    Args:
        image: the original image.
        values: one number per image token of each head, such as `answer.attention[token]` of a trace.
        grid: the patch grid, from `model.image_grid(image)`.
        layers: the layer numbers of `values`, for the axis; None counts from 0.
        top: the end of the colour scale of all heads, to compare how much they look. None for the
            largest value of each head, to see where it looks.
        title: above the grid.
        label: the label of the colour scale; "" for no scale.
        ax: axes of your own figure, which keeps its style; None for a new figure.

    Returns:
        the figure that holds the grid.

    Raises:
        ValueError: no heads, another number of layers, or another number of values than image tokens.
    """
    n_layers, n_heads = values.shape[:2]
    layers = list(range(n_layers) if layers is None else layers)
    if not n_layers * n_heads or len(layers) != n_layers:
        raise ValueError(
            f"values of shape {values.shape} for {len(layers)} layers: expected [layer head image] "
            "with at least one head and a number for each layer; pass layers=None to count from 0."
        )
    picture = small_picture(image, _CELL)
    width, height = picture.width + _GAP, picture.height + _GAP
    canvas = np.full((n_layers * height, n_heads * width, 3), 255, dtype=np.uint8)
    for row, column in np.ndindex(n_layers, n_heads):
        own = np.asarray(values[row, column], dtype=float)
        cell = heated(picture, own, grid, float(own.max()) if top is None else top)
        y, x = row * height, column * width
        canvas[y : y + picture.height, x : x + picture.width] = np.asarray(cell)
    if ax is not None:
        _draw_grid(ax, canvas, layers, n_heads, top, label)
        ax.set_title(title)
        return figure_of(ax)
    with house_style():
        inches = (PAGE - 1.0) * canvas.shape[0] / canvas.shape[1]
        figure, axes = new_figure(PAGE, float(np.clip(inches + 0.4, 0.9, 9.0)), title)
        _draw_grid(axes, canvas, layers, n_heads, top, label)
        fix_layout(figure)
    return figure


def _draw_grid(
    axes: Axes,
    canvas: np.ndarray,
    layers: Sequence[int],
    n_heads: int,
    top: float | None,
    label: str,
) -> None:
    """One picture of all cells, with numbers of layers and heads at the middles of their cells."""
    axes.imshow(canvas, interpolation="nearest")
    height, width = canvas.shape[0] / len(layers), canvas.shape[1] / n_heads
    rows, columns = ticks(len(layers)), ticks(n_heads)
    axes.set_yticks([(n + 0.5) * height for n in rows], [str(layers[n]) for n in rows])
    axes.set_xticks([(n + 0.5) * width for n in columns], [str(n) for n in columns])
    axes.set(xlabel="head", ylabel="layer")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if label:
        mappable = ScalarMappable(Normalize(0, 1 if top is None else top), "viridis")
        bar = figure_of(axes).colorbar(mappable, cax=axes.inset_axes((1.02, 0, 0.02, 1)))
        bar.set_label(label)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        if top is None:
            bar.set_ticks([0, 1], labels=["0", "head's\nlargest"])


@refuse_wrong_types
def token_overlays(
    trace: Trace,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    title: str = "",
    label: str = "attention",
) -> Figure:
    """The tokens of each answer in rows, each with its attention as a heat map on the image.

    All colour scales run from 0 to the largest value in the figure. The probability of each token is
    below it. An answer with more than 48 tokens is cut, and its row says so.

    Args:
        trace: a trace of `model.trace`, for a family with a patch grid.
        layers, heads: the layers and heads to average; None for all.
        title: above the figure.
        label: the label of the colour scale; "" for no scale.

    Raises:
        ValueError: image tokens without a place in the image, or layers or heads that do not exist.
    """
    grid = trace.grid
    if grid is None:
        raise ValueError(
            f"the image tokens of {trace.model} have no position in the image: expected a model "
            "with a patch grid; take trace.to_dataframe() for its numbers."
        )
    lines = [line for answer in trace.answers for line in _lines(answer)]
    maps = {(a, n): a.map_of(n, layers, heads) for a, line in lines for n in line}
    top = max(float(layer_map.max()) for layer_map in maps.values()) or 1.0
    picture = small_picture(trace.image, _PANEL)
    width = min(max(len(line) for _, line in lines), _IN_A_ROW)
    with house_style():
        panel = (PAGE - 0.9) / _IN_A_ROW
        height = float(np.clip(panel * trace.image.height / trace.image.width, 0.3, 2.5))
        size = (panel * width + 0.9, len(lines) * (height + 0.54) + 0.25)
        heading = wrapped(title, size[0] - 0.1)
        size = (size[0], size[1] + 0.14 * len(heading.splitlines()))
        figure = NotebookFigure(figsize=size, layout="constrained")
        panels = figure.subplots(len(lines), width, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for row, (answer, line) in zip(panels, lines, strict=True):
            for axes, n in zip(row, line, strict=False):
                axes.imshow(heated(picture, maps[answer, n], grid, top), interpolation="nearest")
                axes.set_title(_caption(answer, n, 0.85 * panel), fontsize=SMALL)
        scale = ScalarMappable(Normalize(0, top), colormaps["viridis"])
        if label:
            bar = figure.colorbar(scale, ax=list(panels.flat), aspect=30, pad=0.02)
            bar.set_label(label)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        figure.suptitle(heading)
        fix_layout(figure)
    return figure


def _lines(answer: TracedAnswer) -> list[tuple[TracedAnswer, range]]:
    """The answer's tokens in lines of a figure."""
    n = min(len(answer.ids), _MOST_TOKENS)
    return [(answer, range(start, min(start + _IN_A_ROW, n))) for start in range(0, n, _IN_A_ROW)]


def _caption(answer: TracedAnswer, n: int, inches: float) -> str:
    """The answer's name over its first token, the token, and its probability."""
    name = ""
    if n % _IN_A_ROW == 0:
        cut = (
            f", first {_MOST_TOKENS} of {len(answer.ids)}" if len(answer.ids) > _MOST_TOKENS else ""
        )
        name = f"{answer.name}{cut}:" if n == 0 else "..."
    piece = answer.pieces[n].strip() or "\u2423"  # an open box, for a token of no letters
    share = f"{float(answer.log_probs[n].exp()):.1%}"
    return "\n".join([wrapped(name, inches), wrapped(piece, inches), share])
