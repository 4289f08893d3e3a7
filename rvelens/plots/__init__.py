"""Figures that are readable at the column width of a two-column paper.

Each function returns a matplotlib `Figure`, and does not change global state. A notebook shows the
figure, and `save_figure` writes it. To make your own figure for a notebook, use `new_figure` under
`house_style`.

- `style.py`: the house style: sizes, colours by role, labels at line ends, files.
- `image.py`: attention and enhancement on the image.
- `mosaic.py`: every head of a model, every token of an answer.
- `heads.py`: ARS by layer and head.
- `attention.py`: attention of the last token by layer and position.
- `lines.py`: lines over the values of a parameter.
- `grids.py`: heat maps of two parameters, and of bands of layers.
- `rows.py`: numbers and seconds, with one row per method.
- `points.py`: one point per head.
- `yes_ratio.py`: accuracy over how often a method answers yes.
- `forest.py`: several kinds of estimates side by side.
"""

from __future__ import annotations

from rvelens.plots.attention import attention_strip, stacked_shares
from rvelens.plots.forest import Panel, forest
from rvelens.plots.grids import bands, surface
from rvelens.plots.heads import ars_heatmap, layer_profile
from rvelens.plots.image import head_overlays, overlay, overlay_enhanced
from rvelens.plots.lines import Series, lines
from rvelens.plots.mosaic import head_grid, token_overlays
from rvelens.plots.points import scatter
from rvelens.plots.rows import ScoreRow, dots, timing_bars
from rvelens.plots.style import (
    COLUMN,
    PAGE,
    ROLES,
    check_figure_path,
    house_style,
    new_figure,
    save_figure,
)
from rvelens.plots.yes_ratio import yes_ratio_points

__all__ = [
    "COLUMN",
    "PAGE",
    "ROLES",
    "Panel",
    "ScoreRow",
    "Series",
    "ars_heatmap",
    "attention_strip",
    "bands",
    "check_figure_path",
    "dots",
    "forest",
    "head_grid",
    "head_overlays",
    "house_style",
    "layer_profile",
    "lines",
    "new_figure",
    "overlay",
    "overlay_enhanced",
    "save_figure",
    "scatter",
    "stacked_shares",
    "surface",
    "timing_bars",
    "token_overlays",
    "yes_ratio_points",
]
