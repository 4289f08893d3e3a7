"""Yes-ratio against accuracy, one point a method, as SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvelens.app.markup import escape
from rvelens.plots.style import place_labels, role
from rvelens.plots.yes_ratio import role_of_method, with_yes_ratio

WIDTH, HEIGHT = 430, 330
_PAD_L, _PAD_R, _PAD_T, _PAD_B = 56, 66, 14, 46


def chart(methods: Mapping[str, Mapping[str, Any]], share_of_yes: float) -> str:
    """Each method's accuracy over how often it says yes, with both intervals.

    Args:
        methods: figures by method, as in the report of `rvelens eval`.
        share_of_yes: how often yes is right, drawn as an upright line.
    """
    rows = with_yes_ratio(methods)
    if not rows:
        return ""
    x0, x1 = _limits([row["yes_ratio"] for row in rows.values()], share_of_yes)
    y0, y1 = _limits([row["accuracy"] for row in rows.values()])

    def x(value: float) -> float:
        return _PAD_L + (value - x0) / (x1 - x0) * (WIDTH - _PAD_L - _PAD_R)

    def y(value: float) -> float:
        return HEIGHT - _PAD_B - (value - y0) / (y1 - y0) * (HEIGHT - _PAD_T - _PAD_B)

    parts = [*_axes(x, y, (x0, x1), (y0, y1)), *_truth(x(share_of_yes))]
    labels = _label_heights([y(row["accuracy"]["value"]) for row in rows.values()])
    for n, (name, row) in enumerate(rows.items()):
        parts.append(_point(name, n, row, x, y, labels[n]))
    words = "; ".join(
        f"{name} {row['accuracy']['value']:.3f} at {row['yes_ratio']['value']:.3f}"
        for name, row in rows.items()
    )
    return (
        f'<figure class="rv-chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"Accuracy at yes-ratio: {words}")}">{"".join(parts)}</svg></figure>'
    )


def _limits(estimates: list[Mapping[str, float]], *more: float) -> tuple[float, float]:
    low = min([e["low"] for e in estimates] + list(more))
    high = max([e["high"] for e in estimates] + list(more))
    room = max(0.06 * (high - low), 0.01)
    return max(low - room, 0.0), min(high + room, 1.0)


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 6)
    first = int(np.ceil(low / step))
    return [k * step for k in range(first, int(np.floor(high / step)) + 1)]


def _axes(x: Any, y: Any, across: tuple[float, float], up: tuple[float, float]) -> list[str]:
    bottom, parts = HEIGHT - _PAD_B, []
    for value in _ticks(*across):
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" class="m">{value:.2f}</text>')
    for value in _ticks(*up):
        parts.append(
            f'<path d="M{_PAD_L} {y(value):.1f}H{WIDTH - _PAD_R}" class="g"/>'
            f'<text x="{_PAD_L - 8}" y="{y(value) + 4:.1f}" class="e">{value:.2f}</text>'
        )
    middle = (_PAD_L + WIDTH - _PAD_R) / 2
    parts.append(f'<path d="M{_PAD_L} {bottom}H{WIDTH - _PAD_R}" class="a"/>')
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" class="m">share of questions answered yes</text>'
    )
    parts.append(
        f'<text transform="translate(14 {(_PAD_T + bottom) / 2}) rotate(-90)" class="m">accuracy</text>'
    )
    return parts


def _truth(at: float) -> list[str]:
    return [
        f'<path d="M{at:.1f} {_PAD_T}V{HEIGHT - _PAD_B}" class="t"/>',
        f'<text x="{at + 4:.1f}" y="{HEIGHT - _PAD_B - 6}">yes is right</text>',
    ]


def _label_heights(heights: list[float]) -> list[float]:
    """Where labels stand so that none covers another."""
    height = HEIGHT - _PAD_T - _PAD_B
    shares = (np.array(heights) - _PAD_T) / height
    return (_PAD_T + height * place_labels(shares, np.full(len(heights), 15 / height))).tolist()


def _point(name: str, n: int, row: Mapping[str, Any], x: Any, y: Any, label: float) -> str:
    style = role_of_method(name, n)
    colour = "var(--rv-ink)" if style is role("plain") else style.colour  # near black
    across, up = row["yes_ratio"], row["accuracy"]
    at_x, at_y = x(across["value"]), y(up["value"])
    right = WIDTH - _PAD_R
    return (
        f'<g style="--c:{colour}">'
        f'<path class="i" d="M{x(across["low"]):.1f} {at_y:.1f}H{x(across["high"]):.1f}'
        f'M{at_x:.1f} {y(up["low"]):.1f}V{y(up["high"]):.1f}"/>'
        f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5"/>'
        f'<path class="l" d="M{at_x:.1f} {at_y:.1f}L{right + 4} {label:.1f}"/>'
        f'<text class="n" x="{right + 8}" y="{label + 4:.1f}">{escape(name)}</text></g>'
    )
