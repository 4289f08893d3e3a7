"""The last token's attention by layer: to every position, and to image and text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.markers import TICKDOWN
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from rvelens.files.arguments import refuse_wrong_types
from rvelens.plots.style import (
    COLUMN,
    ROLES,
    SMALL,
    End,
    Role,
    end_labels,
    figure_of,
    fix_layout,
    house_style,
    new_figure,
    role,
    scale_above,
    ticks,
)

_COLUMNS = 700  # The strip's image is at most this wide; more would be lost in print.


@refuse_wrong_types
def attention_strip(
    weights: Float[np.ndarray, "layer position"],
    image: Bool[np.ndarray, " position"],
    *,
    label: str = "log10 of the last token's attention",
    title: str = "",
    width: float = COLUMN,
) -> Figure:
    """The last token's attention to each position, one row per layer (Fig. 2).

    Args:
        weights: attention of the last token after the softmax; 0 and NaN are shown as empty.
        image: which positions are image tokens; a bracket marks each run of them.
        label: the text over the colour scale, which is in log10 units.
        title: above the figure.
        width: inches.

    Inputs with more than 700 positions are drawn in 700 columns. Each column shows its largest weight,
    so a single token with most of the attention stays visible.

    Raises:
        ValueError: `image` does not have one value for each position.
    """
    if image.shape != weights.shape[1:]:
        raise ValueError(
            f"{image.size} image positions for weights of shape {weights.shape}: expected "
            f"{weights.shape[-1]}; pass one truth value for each position."
        )
    n_layers, n = weights.shape
    values = np.asarray(weights, dtype=float)
    logs = np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)
    logs = _columns(logs)
    with house_style():
        figure, axes = new_figure(width, float(np.clip(0.055 * n_layers + 1.75, 1.9, 4.0)), title)
        finite = logs[np.isfinite(logs)]
        # A few weights that underflowed must not take the whole scale.
        low, high = (np.quantile(finite, 0.01), finite.max()) if finite.size else (-1.0, 0.0)
        drawn = axes.imshow(
            logs,
            cmap="cividis",
            norm=Normalize(low, high if high > low else low + 1),
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, n - 0.5, n_layers - 0.5, -0.5),
        )
        axes.set(xlabel="position in the input", ylabel="layer", yticks=ticks(n_layers))
        short = bool(finite.size and finite.min() < low)
        scale_above(figure, axes, drawn, label, extend="min" if short else "neither")
        _brackets(axes, image)
        fix_layout(figure)
    return figure


def _columns(logs: Float[np.ndarray, "layer position"]) -> Float[np.ndarray, "layer column"]:
    n = logs.shape[1]
    if n <= _COLUMNS:
        return logs
    return np.fmax.reduceat(logs, np.arange(_COLUMNS) * n // _COLUMNS, axis=1)


def _brackets(axes: Axes, image: Bool[np.ndarray, " position"]) -> None:
    """A bracket over each run of image tokens, and what they are."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], image.astype(np.int8), [0]])))
    across = axes.get_xaxis_transform()
    for start, stop in edges.reshape(-1, 2) - 0.5:
        axes.plot(
            [start, stop],
            [1, 1],
            color="black",
            linewidth=0.8,
            marker=TICKDOWN,
            transform=offset_copy(across, figure_of(axes), 0, 4, units="points"),
            clip_on=False,
        )
    if edges.size:
        middle = (edges[0] + edges[-1] - 1) / 2
        name = f"image ({int(image.sum())} of {image.size} tokens)"
        above = offset_copy(across, figure_of(axes), 0, 6, units="points")
        axes.text(middle, 1, name, ha="center", va="bottom", transform=above, fontsize=SMALL)


@refuse_wrong_types
def stacked_shares(
    shares: Mapping[str, Float[np.ndarray, " layer"]],
    tokens: Mapping[str, float],
    *,
    low: Float[np.ndarray, " layer"] | None = None,
    high: Float[np.ndarray, " layer"] | None = None,
    y_label: str = "attention of the last token (%)",
    title: str = "",
    width: float = COLUMN,
    height: float = 2.1,
) -> Figure:
    """Shares of attention by layer, with the shares of tokens as horizontal lines (Fig. 3).

    Args:
        shares: the share of attention of each kind of token by layer, from 0 to 1, from the bottom of
            the stack. Put "image" first, so that its share can be read off the axis. Kinds that are
            roles have the colours of the roles.
        tokens: the share of tokens of each kind, equation 1, in the same order.
        low, high: interval of the first kind's share.
        y_label, title, width, height: as of `lines`.

    Raises:
        ValueError: different kinds in `tokens` and `shares`, or none.
    """
    kinds, token_kinds = list(shares), list(tokens)
    if not kinds or kinds != token_kinds:
        raise ValueError(
            f"shares of {', '.join(kinds) or 'nothing'} and tokens of "
            f"{', '.join(token_kinds) or 'nothing'}: expected the same kinds in the same order, "
            "at least one; reorder them."
        )
    stack = 100 * np.stack([np.asarray(share, dtype=float) for share in shares.values()])
    layer, right = np.arange(stack.shape[1]), stack.shape[1] - 0.5
    with house_style():
        figure, axes = new_figure(width, height, title)
        axes.set(xlabel="layer", ylabel=y_label, ylim=(0, 100), xticks=ticks(len(layer)))
        axes.set_xlim(-0.5, right)
        line_ends = []
        top = np.zeros(len(layer))
        for n, (kind, share) in enumerate(zip(kinds, stack, strict=True)):
            style = role(kind if kind in ROLES else "", n)
            _step(axes, layer, top, share, style)
            line_ends.append(End(kind, style.colour, right, (top + share / 2)[-1]))
            top = top + np.nan_to_num(share)
        for n in range(1, max(len(kinds), 2)):
            edge = 100 * sum(tokens[kind] for kind in kinds[:n])
            axes.axhline(edge, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
            line_ends.append(
                End(f"{' + '.join(kinds[:n])}: {edge:.1f}% of tokens", "black", right, edge)
            )
        if low is not None and high is not None:
            axes.vlines(layer, 100 * low, 100 * high, color="black", linewidth=0.8)
        end_labels(axes, line_ends)
    return figure


def _step(
    axes: Axes,
    layer: NDArray[np.integer],
    bottom: NDArray[np.floating],
    share: NDArray[np.floating],
    style: Role,
) -> None:
    axes.bar(
        layer,
        np.nan_to_num(share),
        bottom=bottom,
        width=0.9 if len(layer) <= 12 else 1.0,
        facecolor=style.colour + "66",
        edgecolor=style.colour,
        hatch=style.hatch,
        linewidth=0.5 if len(layer) <= 12 else 0.0,
    )
