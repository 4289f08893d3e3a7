"""The image tokens that RVE enhanced and removed at the first token, as HTML."""

from __future__ import annotations

import numpy as np

from rvelens.app.asking import Comparison
from rvelens.app.markup import figures, note, swatches
from rvelens.app.viewer import Focus
from rvelens.heads.layers import format_layers
from rvelens.studies.cases.pictures import colour, n_layers, small, tinted


def enhanced(comparison: Comparison, view: Focus) -> str:
    """What was enhanced and removed, in one layer or in all; "" for methods that enhance no tokens."""
    masks = next((column.masks for column in comparison.columns if column.masks), None)
    grid = comparison.trace.grid
    if masks is None or grid is None:
        return ""
    chosen = (
        masks if view.layer is None else {k: v for k, v in masks.items() if k == str(view.layer)}
    )
    title = "<h3>Enhanced tokens</h3>"
    if not chosen:
        layers = format_layers(map(int, masks))
        return title + note(f"Layer {view.layer} is not enhanced; layers {layers} are.")
    picture, n = small(comparison.image), len(chosen)
    counts = {name: n_layers(chosen, name, grid.n_tokens) for name in ("enhanced", "removed")}
    shown, removed = (tinted(picture, count, grid, n) for count in counts.values())
    key = (
        f"in 1 to {n} layers ({format_layers(map(int, chosen))})"
        if n > 1
        else f"in layer {next(iter(chosen))}"
    )
    captions = {name: f"{name}: {_tokens(count)}" for name, count in counts.items()}
    return (
        title
        + figures(
            [
                (picture, "picture"),
                (shown, captions["enhanced"]),
                (removed, f"{captions['removed']}, by the denoising mask"),
            ]
        )
        + swatches([colour(k, n) for k in range(1, n + 1)], key)
    )


def _tokens(counts: np.ndarray) -> str:
    n = int((counts > 0).sum())
    return f"{n} token" if n == 1 else f"{n} tokens"
