"""Pictures for the page: attention and differences of attention over an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

from rvelens.plots import ROLES
from rvelens.tokens.grid import ImageGrid
from rvelens.tokens.heat import HEAT, heated, mixed

__all__ = ["CHANGE", "HEAT", "changed", "css_gradient", "heated", "hexes"]

# Blue where there is less, orange where there is more; both legible on light and on dark.
CHANGE = LinearSegmentedColormap.from_list(
    "change", [ROLES["control"].colour, "#f4f4f2", ROLES["rve"].colour]
)


def changed(
    picture: Image.Image, values: Float[np.ndarray, " image"], grid: ImageGrid, top: float
) -> Image.Image:
    """As `heated` for differences, from -`top` in blue to `top` in orange."""
    heat = grid.picture(values.astype(float), *picture.size)
    share = np.nan_to_num(heat) / (top or 1.0)
    return mixed(picture, heat, CHANGE((share + 1) / 2), 0.85 * np.abs(share).clip(0, 1) ** 0.5)


def css_gradient(colours: Colormap, steps: int = 9) -> str:
    """A colour scale as a CSS background, from left to right."""
    return f"linear-gradient(to right, {', '.join(hexes(colours, steps))})"


def hexes(colours: Colormap, steps: int) -> list[str]:
    """Evenly spaced colours of a scale."""
    return [
        "#" + "".join(f"{round(255 * x):02x}" for x in colours(k / max(steps - 1, 1))[:3])
        for k in range(steps)
    ]
