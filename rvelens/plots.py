"""Figures: attention and enhancement on the image, ARS by layer and head.

Each function returns a matplotlib `Figure` and touches no global state; `save_figure` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rvelens.ars import ARSProfile
from rvelens.grid import ImageGrid
from rvelens.hooks.enhanced import Masks
from rvelens.layers import format_layers
from rvelens.prompts import ImageLike, load_image

COLUMN, PAGE = 3.35, 6.9  # Widths in inches of a column and of a page of a two-column paper.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
FORMATS = (".png", ".pdf", ".svg")
_PIXELS = 900  # Pictures are drawn at most this wide or high; more would only make large files.


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF (with embedded fonts) or SVG, by the file name's ending.

    Raises:
        ValueError: another ending, a folder that does not exist, or the name of a folder.
    """
    check_figure_path(path)
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(path, dpi=300)


def check_figure_path(path: str | Path) -> None:
    """Raise ValueError for a path that `save_figure` cannot write, before anything is computed."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: expected a file name that ends in {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {path.parent}: expected one to write {path.name} to.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected the name of a file to write.")


def overlay(
    image: ImageLike,
    values: Float[np.ndarray, " image"],
    grid: ImageGrid,
    *,
    title: str = "",
    label: str = "attention",
) -> Figure:
    """One number per image token as heat on the image, at the image's own aspect.

    Args:
        image: the original image; parts that the processor cropped away are dimmed.
        values: for example the attention of the last token, averaged over heads.
        grid: where the tokens lie, from `model.image_grid(image)`.
        title: above the picture.
        label: what the colours mean, beside the scale.

    Raises:
        ValueError: not one number per image token.
    """
    picture = _small(image)
    heat = grid.picture(values.astype(float), *picture.size)
    low, top = _extremes(heat)
    scale = Normalize(min(low, 0.0), top or 1.0)
    with rc_context(STYLE):
        figure, (axes,) = _panels(picture, 1, COLUMN)
        _show(axes, picture, heat, colormaps["viridis"], scale)
        axes.set_title(title, parse_math=False)
        _scale_beside(figure, [axes], ScalarMappable(scale, "viridis"), label)
    return figure


def overlay_enhanced(
    image: ImageLike,
    masks: Mapping[int, Masks],
    grid: ImageGrid,
    *,
    sample: int = 0,
    title: str = "",
) -> Figure:
    """Which image tokens RVE enhanced, and which the denoising mask removed, in how many layers.

    Args:
        image: the original image.
        masks: what `mask_recording_hooks` recorded in one forward, by layer.
        grid: where the tokens lie, from `model.image_grid(image)`.
        sample: which sample of the batch.
        title: above the panels; the layers are named below it.

    Raises:
        ValueError: no masks, or not one per image token.
    """
    if not masks:
        raise ValueError(
            "no masks were recorded: expected those of a forward under mask_recording_hooks."
        )
    picture = _small(image)
    shares = [
        np.stack([getattr(m, name)[sample].cpu().numpy() for m in masks.values()]).mean(axis=0)
        for name in ("target", "removed")
    ]
    heats = [grid.picture(share[: grid.n_tokens].astype(float), *picture.size) for share in shares]
    n = len(masks)
    colours, scale = _steps(n, max(_extremes(heat)[1] for heat in heats))
    with rc_context(STYLE):
        figure, panels = _panels(picture, 3, PAGE)
        _show(panels[0], picture, None, colours, scale)
        for axes, heat in zip(panels[1:], heats, strict=True):
            _show(axes, picture, heat, colours, scale, hide_below=0.5 / n)
        for axes, name in zip(panels, ("image", "enhanced", "removed by denoising"), strict=True):
            axes.set_title(name)
        _scale_beside(figure, panels, ScalarMappable(scale, colours), f"layers (of {n})")
        layers = f"RVE in layers {format_layers(masks)}"
        figure.suptitle(f"{title}\n{layers}" if title else layers, fontsize=8)
    return figure


def ars_heatmap(profile: ARSProfile, *, sort: bool = False, title: str = "") -> Figure:
    """ARS of every head, layers downwards, with each layer's mean and range beside it.

    Args:
        profile: a measured profile; a published ranking has no scores.
        sort: order each layer's heads from most to least sensitive instead of by number.
        title: above the heat map.

    Raises:
        ValueError: a profile without scores.
    """
    scores = profile.scores.float().cpu().numpy()
    shown = -np.sort(-scores, axis=1) if sort else scores
    n_layers, n_heads = scores.shape
    height = float(np.clip(0.11 * n_layers + 1.0, 1.9, 5.5))
    with rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, height), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
        mesh = left.imshow(
            shown, cmap="cividis", aspect="auto", interpolation="nearest", vmin=float(scores.min())
        )
        left.set_xlabel("head, by rank" if sort else "head")
        left.set_ylabel("layer")
        if title:
            figure.suptitle(title, fontsize=8)
        left.set_xticks(_ticks(n_heads))
        left.set_yticks(_ticks(n_layers))
        bar = figure.colorbar(mesh, ax=left, location="top", aspect=30, pad=0.02)
        bar.set_label("ARS")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        _layer_means(right, scores)
    return figure


def _layer_means(axes: Axes, scores: NDArray[np.float32]) -> None:
    """Mean over the heads of each layer as a dot, lowest and highest head as a bar."""
    layers, means = np.arange(len(scores)), scores.mean(axis=1)
    axes.hlines(layers, scores.min(axis=1), scores.max(axis=1), color="#b0b0b0", linewidth=1.2)
    axes.plot(means, layers, "o", color="#00204d", markersize=2.6)
    best = int(means.argmax())
    axes.annotate(
        f"{means[best]:.2f}",
        (means[best], best),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        bbox={"fc": "white", "ec": "none", "pad": 0.4, "alpha": 0.8},
    )
    axes.set_xlabel("mean, range")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(left=False, labelleft=False)


def _ticks(n: int) -> list[int]:
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 50, 100, n) if n / s <= 9)
    return list(range(0, n, step))


def _extremes(heat: Float[np.ndarray, "height width"]) -> tuple[float, float]:
    """Lowest and highest value; 0 and 1 where the processor cropped a thin image away altogether."""
    seen = heat[np.isfinite(heat)]
    return (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)


def _small(image: ImageLike) -> Image.Image:
    """The image in RGB, shrunk or enlarged so that its longer edge has `_PIXELS` pixels."""
    loaded = load_image(image)
    ratio = _PIXELS / max(loaded.size)
    size = (max(round(loaded.width * ratio), 1), max(round(loaded.height * ratio), 1))
    return loaded.resize(size, Image.Resampling.BICUBIC)


def _panels(picture: Image.Image, n: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `n` panels of the picture's aspect side by side, and room for a scale."""
    panel = (width - 0.75) / n
    height = float(np.clip(panel * picture.height / picture.width, 0.5, 7.0))
    figure = Figure(figsize=(width, height + (0.3 if n == 1 else 0.55)), layout="constrained")
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
    if heat is None:
        axes.imshow(picture)
        return
    grey = np.asarray(picture.convert("L"), dtype=float) / 255
    # Pale, so that a colour means the same on dark and on light parts of the picture.
    base = np.repeat((0.25 + 0.75 * grey)[..., None], 3, axis=2)
    seen = np.isfinite(heat)
    filled = np.where(seen, heat, 0.0)
    # Low values let the picture through, high ones stand out; counts of layers are all as opaque.
    opacity = 0.7 if np.isfinite(hide_below) else 0.2 + 0.6 * np.asarray(scale(filled))
    share = np.where(filled > hide_below, opacity, 0.0)[..., None]
    mixed = base * (1 - share) + colours(scale(filled))[..., :3] * share
    axes.imshow(np.where(seen[..., None], mixed, 0.75 + 0.25 * base))
    if not seen.all() and min(seen.shape) > 1:
        axes.contour(seen.astype(float), levels=[0.5], colors="#606060", linewidths=0.6)


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
