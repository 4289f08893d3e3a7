"""Attention and enhancement on the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import format_layers
from rvelens.hooks.enhanced import Masks
from rvelens.model.prompts import ImageLike, load_image
from rvelens.plots.style import (
    COLUMN,
    PAGE,
    SMALL,
    TEXT,
    NotebookFigure,
    figure_of,
    fix_layout,
    house_style,
    panel_letter,
    wrapped,
)
from rvelens.tokens.grid import ImageGrid
from rvelens.tokens.heat import small

_PIXELS = 900  # Pictures are drawn at most this wide or high; more would only make large files.


@refuse_wrong_types
def overlay(
    image: ImageLike,
    values: Float[np.ndarray, " image"],
    grid: ImageGrid,
    *,
    title: str = "",
    label: str = "attention",
    top: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One number per image token as a heat map on the image, in the image's aspect ratio.

    Args:
        image: the original image; parts that the processor cropped away are dimmed.
        values: one number per image token, for example the last token's mean attention over heads.
        grid: the patch grid, from `model.image_grid(image)`.
        title: above the picture.
        label: the label of the colour scale; "" for no scale.
        top: the end of the colour scale, to compare several pictures; None for the largest value.
        ax: axes of your own figure, which keeps its style; None for a new figure.

    Returns:
        the figure that holds the picture.

    Raises:
        ValueError: another number of values than image tokens, or a scale that ends below 0.
    """
    picture = small_picture(image)
    heat = grid.picture(np.asarray(values, dtype=float), *picture.size)
    scale = _scale_of(heat, top)
    if ax is not None:
        ax.set_axis_off()
        _show(ax, picture, heat, colormaps["viridis"], scale)
        ax.set_title(title)
        if label:
            _scale_beside(figure_of(ax), [ax], ScalarMappable(scale, "viridis"), label)
        return figure_of(ax)
    with house_style():
        figure, (axes,) = _panels(picture, 1, COLUMN)
        _show(axes, picture, heat, colormaps["viridis"], scale)
        axes.set_title(title)
        if label:
            _scale_beside(figure, [axes], ScalarMappable(scale, "viridis"), label)
        fix_layout(figure)
    return figure


def _scale_of(heat: Float[np.ndarray, "height width"], top: float | None) -> Normalize:
    """From 0, or the lowest value below it, to `top` or the highest value."""
    low, highest = _extremes(heat)
    if top is not None and not top > 0:
        raise ValueError(f"top={top}: expected where the scale ends, above 0; or leave it out.")
    return Normalize(min(low, 0.0), top or highest or 1.0)


@refuse_wrong_types
def overlay_enhanced(
    image: ImageLike,
    masks: Mapping[int, Masks],
    grid: ImageGrid,
    *,
    sample: int = 0,
    title: str = "",
) -> Figure:
    """The image tokens that RVE enhanced or its denoising mask removed, with the number of layers.

    Args:
        image: the original image.
        masks: the masks that `mask_recording_hooks` recorded in one forward, by layer.
        grid: the patch grid, from `model.image_grid(image)`.
        sample: the number of the sample in the batch.
        title: above the panels; the layers are named below it.

    Raises:
        ValueError: no masks, or masks with another number of values than image tokens.
    """
    if not masks:
        raise ValueError(
            "no masks were recorded: expected masks of a forward; run it under mask_recording_hooks."
        )
    picture = small_picture(image)
    shares = [
        np.stack([getattr(m, name)[sample].cpu().numpy() for m in masks.values()]).mean(axis=0)
        for name in ("target", "removed")
    ]
    heats = [grid.picture(share[: grid.n_tokens].astype(float), *picture.size) for share in shares]
    n = len(masks)
    colours, scale = _steps(n, max(_extremes(heat)[1] for heat in heats))
    with house_style():
        figure, panels = _panels(picture, 3, PAGE)
        _show(panels[0], picture, None, colours, scale)
        for axes, heat in zip(panels[1:], heats, strict=True):
            _show(axes, picture, heat, colours, scale, hide_below=0.5 / n)
        for axes, name in zip(panels, ("image", "enhanced", "removed by denoising"), strict=True):
            axes.set_title(name)
        _scale_beside(figure, panels, ScalarMappable(scale, colours), f"layers (of {n})")
        layers = f"RVE in layers {format_layers(masks)}"
        figure.suptitle(f"{title}\n{layers}" if title else layers)
        fix_layout(figure)
    return figure


@refuse_wrong_types
def head_overlays(
    image: ImageLike,
    most: Mapping[int, Float[np.ndarray, " image"]],
    least: Mapping[int, Float[np.ndarray, " image"]],
    grid: ImageGrid,
    *,
    layer: int,
    scores: Mapping[int, float] | None = None,
    title: str = "",
) -> Figure:
    """Where the most and the least sensitive heads of a layer look, as one small overlay per head.

    The colour scale of each panel runs from 0 to the largest value of its head. So a panel shows where
    a head looks, but not how much.

    Args:
        image: the original image.
        most, least: attention to each image token by head, in display order, as one row of panels each.
            `most` needs at least one head.
        grid: the patch grid, from `model.image_grid(image)`.
        layer: the layer of the heads.
        scores: ARS of the heads, shown over their panels.
        title: above the panels.

    Raises:
        ValueError: no heads, or another number of values than image tokens.
    """
    if not most:
        raise ValueError("no heads: expected the attention of at least one; add it to `most`.")
    rows = {"most sensitive heads": most, "least sensitive heads": least}
    rows = {name: row for name, row in rows.items() if row}
    # Small pictures in small panels: a page of them must not make a file of megabytes.
    picture, small = small_picture(image, _PIXELS // 2), small_picture(image, _PIXELS // 4)
    with house_style():
        figure, whole, panels = _head_panels(picture, [len(row) for row in rows.values()])
        _show(whole, picture, None, colormaps["viridis"], None)
        for letter, (name, row), axes in zip("ab", rows.items(), panels, strict=False):
            for (head, values), panel in zip(row.items(), axes, strict=True):
                _show_head(panel, small, grid, values)
                # The empty line above leaves room for the row's name, which may be wider than a panel.
                score = f"\nARS {scores[head]:.2f}" if scores and head in scores else ""
                panel.set_title(f"\nhead {head}{score}", fontsize=SMALL)
            panel_letter(axes[0], letter, name, lift=24.0 if scores else 14.0)
        scale = ScalarMappable(Normalize(0, 1), "viridis")
        bar = figure.colorbar(scale, ax=[a for row in panels for a in row], aspect=30, pad=0.02)
        bar.set_ticks([0, 1], labels=["0", "head's\nlargest"])
        bar.set_label("attention", labelpad=-14)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        figure.suptitle(wrapped(f"{title}\nlayer {layer}".strip(), PAGE - 0.1, TEXT))
        fix_layout(figure)
    return figure


def _head_panels(picture: Image.Image, counts: list[int]) -> tuple[Figure, Axes, list[list[Axes]]]:
    """A page-wide figure: the picture at the left, a row of panels for each count beside it."""
    columns, n_rows = max(counts), len(counts)
    panel = (PAGE - 1.1) / (columns + n_rows)
    height = float(np.clip(panel * picture.height / picture.width, 0.4, 3.0))
    figure = NotebookFigure(figsize=(PAGE, n_rows * (height + 0.55) + 0.4), layout="constrained")
    grid = figure.add_gridspec(n_rows, columns + 1, width_ratios=[n_rows] + [1] * columns)
    whole = figure.add_subplot(grid[:, 0])
    whole.set_axis_off()
    panels = [
        [figure.add_subplot(grid[row, 1 + column]) for column in range(count)]
        for row, count in enumerate(counts)
    ]
    for axes in (a for row in panels for a in row):
        axes.set_axis_off()
    return figure, whole, panels


def _show_head(
    axes: Axes, picture: Image.Image, grid: ImageGrid, values: Float[np.ndarray, " image"]
) -> None:
    heat = grid.picture(np.asarray(values, dtype=float), *picture.size)
    _show(axes, picture, heat, colormaps["viridis"], Normalize(0, _extremes(heat)[1] or 1.0))


def _extremes(heat: Float[np.ndarray, "height width"]) -> tuple[float, float]:
    """Lowest and highest value; 0 and 1 where the processor cropped a thin image away altogether."""
    finite = heat[np.isfinite(heat)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def small_picture(image: ImageLike, pixels: int = _PIXELS) -> Image.Image:
    """The image in RGB, shrunk or enlarged so that its longer edge has `pixels` pixels."""
    return small(load_image(image), pixels)


def _panels(picture: Image.Image, n: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `n` panels of the picture's aspect side by side, and room for a scale."""
    panel = (width - 0.75) / n
    height = float(np.clip(panel * picture.height / picture.width, 0.5, 7.0))
    figure = NotebookFigure(
        figsize=(width, height + (0.3 if n == 1 else 0.55)), layout="constrained"
    )
    grid = np.atleast_1d(figure.subplots(1, n))
    for axes in grid:
        axes.set_axis_off()
    return figure, list(grid)


def _show(
    axes: Axes,
    picture: Image.Image,
    heat: Float[np.ndarray, "height width"] | None,
    colours: Colormap,
    scale: Any,
    hide_below: float = -np.inf,
) -> None:
    """The picture in pale grey with heat over it; white where no token sees it."""
    # A smoothed enlargement of a small picture would make a file several times as large.
    interpolation = "nearest" if max(picture.size) < _PIXELS else None
    if heat is None:
        axes.imshow(picture, interpolation=interpolation)
        return
    grey = np.asarray(picture.convert("L"), dtype=float) / 255
    # Pale, so that a colour means the same on dark and on light parts of the picture.
    base = np.repeat((0.25 + 0.75 * grey)[..., None], 3, axis=2)
    visible = np.isfinite(heat)
    filled = np.where(visible, heat, 0.0)
    # Low values let the picture through, high ones stand out; counts of layers are all as opaque.
    opacity = 0.7 if np.isfinite(hide_below) else 0.2 + 0.6 * np.asarray(scale(filled))
    share = np.where(filled > hide_below, opacity, 0.0)[..., None]
    mixed = base * (1 - share) + colours(scale(filled))[..., :3] * share
    axes.imshow(
        np.where(visible[..., None], mixed, 0.75 + 0.25 * base), interpolation=interpolation
    )
    if not visible.all() and min(visible.shape) > 1:
        axes.contour(visible.astype(float), levels=[0.5], colors="#606060", linewidths=0.6)


def _steps(n: int, top: float) -> tuple[Colormap, BoundaryNorm]:
    """One colour for each count of layers from 0 to `n`, as shares; the scale ends at `top`."""
    most = max(round(top * n), 1)
    colours = ListedColormap(colormaps["viridis"](np.linspace(0.1, 1.0, most)))
    return colours, BoundaryNorm((np.arange(most + 1) + 0.5) / n, most)


def _scale_beside(
    figure: Figure, axes: Sequence[Axes], mappable: ScalarMappable, label: str
) -> None:
    # Inside the last panel's frame, so that the scale is as high as the picture.
    bar = figure.colorbar(mappable, cax=axes[-1].inset_axes((1.03, 0, 0.045, 1)))
    bar.set_label(label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    if isinstance(mappable.norm, BoundaryNorm):
        n_steps = mappable.norm.Ncmap
        edges = np.asarray(mappable.norm.boundaries)
        width = edges[1] - edges[0]
        shown = sorted({1, *(round(x) for x in np.linspace(1, n_steps, min(n_steps, 5)))})
        bar.set_ticks([k * width for k in shown], labels=[str(k) for k in shown])
        bar.minorticks_off()
