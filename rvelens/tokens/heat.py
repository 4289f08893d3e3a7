"""Numbers of image tokens as heat on the picture, and pictures as text for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from PIL import Image

from rvelens.tokens.grid import ImageGrid

HEAT = colormaps["viridis"]
_EDGE = 448  # Pixels of the longer edge: sharp at a third of a page, small in a file of many.


def small(image: Image.Image, edge: int = _EDGE) -> Image.Image:
    """The picture in RGB with `edge` pixels on its longer edge."""
    ratio = edge / max(image.size)
    size = (max(round(image.width * ratio), 1), max(round(image.height * ratio), 1))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def to_data_uri(picture: Image.Image) -> str:
    """A picture as the data URI of a WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def heated(
    picture: Image.Image, values: Float[np.ndarray, " image"], grid: ImageGrid, top: float
) -> Image.Image:
    """The picture in pale grey with one number per image token as heat, from 0 to `top`."""
    heat = grid.picture(values.astype(float), *picture.size)
    share = np.nan_to_num(heat) / (top or 1.0)
    return mixed(picture, heat, HEAT(share), 0.15 + 0.65 * share.clip(0, 1))


def mixed(
    picture: Image.Image,
    heat: Float[np.ndarray, "height width"],
    colours: Float[np.ndarray, "height width 4"],
    opacity: Float[np.ndarray, "height width"],
) -> Image.Image:
    """Colours over the pale picture; dark where `heat` is NaN, since no token sees it."""
    # Pale, so that a colour means the same on dark and on light parts of the picture.
    pale = 0.25 + 0.75 * np.asarray(picture.convert("L"), dtype=float)[..., None] / 255
    blend = pale * (1 - opacity[..., None]) + colours[..., :3] * opacity[..., None]
    blend = np.where(np.isnan(heat)[..., None], 0.55 * pale, blend)
    return Image.fromarray((255 * blend.clip(0, 1)).astype(np.uint8))
