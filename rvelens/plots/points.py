"""Figures with one point per head."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

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


@refuse_wrong_types
def scatter(
    x: Float[np.ndarray, " head"],
    y: Float[np.ndarray, " head"],
    layer: Int[np.ndarray, " head"],
    *,
    x_label: str,
    y_label: str,
    reference: tuple[str, float] | None = None,
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """Two measures of each head, such as ARS and localisation, with its layer as colour.

    Args:
        x, y: the measures, one number per head. Heads with a NaN are left out, and counted below the
            figure.
        layer: the layer of each head. Colours go from dark to light, which is also visible in print.
        x_label, y_label: the labels of the measures, with units.
        reference: name and value of a horizontal line, such as ("chance", 0.5).
        title: the text above the figure, such as the correlation.
        width: inches.

    Raises:
        ValueError: different numbers of x, y and layers.
    """
    if not len(x) == len(y) == len(layer):
        raise ValueError(
            f"{len(x)} x, {len(y)} y and {len(layer)} layers: expected as many of each; pass one "
            "for each head."
        )
    n_layers = int(layer.max()) + 1 if len(layer) else 1
    finite = np.isfinite(x) & np.isfinite(y)
    # Viridis without its end: yellow dots on white paper are hardly seen.
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, n_layers)))
    scale = BoundaryNorm(np.arange(n_layers + 1) - 0.5, n_layers)
    with house_style():
        figure, axes = new_figure(width, 2.6, title)
        if reference is not None:
            name, value = reference
            axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            axes.annotate(
                name,
                (1, value),
                (0, 2),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                color="#5f5f5f",
                fontsize=SMALL,
                bbox={"fc": "white", "ec": "none", "pad": 0.4, "alpha": 0.8},
            )
        dots = axes.scatter(
            x[finite],
            y[finite],
            c=layer[finite],
            cmap=colours,
            norm=scale,
            s=11 if n_layers < 16 else 7,
            linewidths=0.25,
            edgecolors="white",
        )
        missing = int((~finite).sum())
        note = f"\n(without {missing} of {len(x)} heads: no number)" if missing else ""
        axes.set(xlabel=x_label + note, ylabel=y_label)
        scale_above(figure, axes, dots, "layer", ticks=ticks(n_layers))
        fix_layout(figure)
    return figure
