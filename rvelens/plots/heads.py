"""ARS by layer and head, and by layer with its spread over pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.heads.layers import format_layers
from rvelens.heads.profile import ARSProfile
from rvelens.plots.lines import Series, draw_lines
from rvelens.plots.style import (
    COLUMN,
    GREY,
    SMALL,
    TEXT,
    NotebookFigure,
    fix_layout,
    house_style,
    new_figure,
    scale_above,
    ticks,
    wrapped,
)


@refuse_wrong_types
def ars_heatmap(profile: ARSProfile, *, sort: bool = False, title: str = "") -> Figure:
    """ARS of every head as a heat map, with the mean and the range of each layer.

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
    with house_style():
        figure = NotebookFigure(figsize=(COLUMN, height), layout="constrained")
        map_axes, mean_axes = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
        mesh = map_axes.imshow(
            shown, cmap="cividis", aspect="auto", interpolation="nearest", vmin=float(scores.min())
        )
        map_axes.set_xlabel("head, by rank" if sort else "head")
        map_axes.set_ylabel("layer")
        if title:
            figure.suptitle(wrapped(title, COLUMN - 0.1, TEXT))
        map_axes.set_xticks(ticks(n_heads))
        map_axes.set_yticks(ticks(n_layers))
        scale_above(figure, map_axes, mesh, profile.score_name)
        _layer_means(mean_axes, scores)
        fix_layout(figure)
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
        fontsize=SMALL,
        bbox={"fc": "white", "ec": "none", "pad": 0.4, "alpha": 0.8},
    )
    axes.set_xlabel("mean, range")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(left=False, labelleft=False)


@refuse_wrong_types
def layer_profile(
    profile: ARSProfile,
    *,
    layers: Sequence[int] = (),
    share: float = 0.8,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """Mean ARS over the heads of each layer, with its spread over the contrastive pairs.

    Args:
        profile: a profile with the scores of every pair, as `score_heads` measures it.
        layers: layers to shade, such as those that RVE enhances.
        share: the share of pairs, the middle ones, that the band or bars cover. This is not an interval
            of the mean.
        title: above the axes.
        width: inches.

    Raises:
        ValueError: a profile without the scores of each pair.
    """
    if profile.per_pair is None:
        raise ValueError(
            "this profile holds no scores of single pairs: expected one that score_heads measured; "
            "measure it again to see its spread."
        )
    by_pair = profile.per_pair.float().cpu().numpy().mean(axis=2)
    low, high = np.quantile(by_pair, [(1 - share) / 2, (1 + share) / 2], axis=0)
    name = f"mean over heads, and middle {share:.0%} of {counted(len(by_pair), 'pair')}"
    with house_style():
        figure, axes = new_figure(width, 1.9, title)
        axes.set(xlabel="layer", ylabel=profile.score_name)
        for layer in layers:
            axes.axvspan(layer - 0.5, layer + 0.5, color="#ececec", linewidth=0, zorder=0)
        if layers:
            axes.set_title(f"shaded: layers {format_layers(layers)}", fontsize=SMALL, color=GREY)
        draw_lines(axes, {name: Series(by_pair.mean(axis=0), low=low, high=high)})
    return figure
