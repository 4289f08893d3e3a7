"""Pictures for the page: attention and differences of attention over an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

from rvelens.plots import ROLES
from rvelens.tokens.grid import ImageGrid

HEAT = colormaps["viridis"]
# Blue where there is less, orange where there is more; both legible on light and on dark.
CHANGE = LinearSegmentedColormap.from_list(
    "change", [ROLES["control"].colour, "#f4f4f2", ROLES["rve"].colour]
)


def heated(
    picture: Image.Image, values: Float[np.ndarray, " image"], grid: ImageGrid, top: float
) -> Image.Image:
    """The picture in pale grey with one number per image token as heat, from 0 to `top`."""
    heat = grid.picture(values.astype(float), *picture.size)
    share = np.nan_to_num(heat) / (top or 1.0)
    return _mixed(picture, heat, HEAT(share), 0.15 + 0.65 * share.clip(0, 1))


def changed(
    picture: Image.Image, values: Float[np.ndarray, " image"], grid: ImageGrid, top: float
) -> Image.Image:
    """The same for differences, from -`top` in blue to `top` in orange."""
    heat = grid.picture(values.astype(float), *picture.size)
    share = np.nan_to_num(heat) / (top or 1.0)
    return _mixed(picture, heat, CHANGE((share + 1) / 2), 0.85 * np.abs(share).clip(0, 1) ** 0.5)


def _mixed(
    picture: Image.Image,
    heat: Float[np.ndarray, "height width"],
    colours: Float[np.ndarray, "height width 4"],
    opacity: Float[np.ndarray, "height width"],
) -> Image.Image:
    """Colours over the pale picture; dark where no token sees it."""
    pale = 0.25 + 0.75 * np.asarray(picture.convert("L"), dtype=float)[..., None] / 255
    mixed = pale * (1 - opacity[..., None]) + colours[..., :3] * opacity[..., None]
    mixed = np.where(np.isnan(heat)[..., None], 0.55 * pale, mixed)
    return Image.fromarray((255 * mixed.clip(0, 1)).astype(np.uint8))


def gradient(colours: Colormap, steps: int = 9) -> str:
    """A colour scale as a CSS background, from left to right."""
    return f"linear-gradient(to right, {', '.join(hexes(colours, steps))})"


def hexes(colours: Colormap, steps: int) -> list[str]:
    """Evenly spaced colours of a scale."""
    return [
        "#" + "".join(f"{round(255 * x):02x}" for x in colours(k / max(steps - 1, 1))[:3])
        for k in range(steps)
    ]
