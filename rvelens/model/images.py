"""The accepted types of images: files, pictures, arrays and tensors."""

from __future__ import annotations

from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from rvelens.files.wording import kind_of_value

# A path, a picture, an open binary file, an array [height width channel] or a tensor
# [channel height width].
Pixels = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]
ImageLike = str | Path | Image.Image | IO[bytes] | BufferedIOBase | Pixels
_CHANNELS = (1, 3, 4)


def is_image(value: Any) -> bool:
    """Whether a value is one image, and not several."""
    return isinstance(value, str | Path | Image.Image | np.ndarray | Tensor) or is_file(value)


def is_file(value: Any) -> bool:
    """Whether a value is an open file."""
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def picture_of(image: Pixels) -> Image.Image:
    """A picture from an array [height width] or [height width channel], or from a tensor.

    A tensor is [height width] or [channel height width], as in torchvision. There are 1, 3 or 4
    channels. uint8 values are used unchanged. Floats from 0 to 1 are multiplied by 255 and rounded.

    Raises:
        ValueError: another shape or dtype, or real numbers outside of 0 to 1.
    """
    if isinstance(image, Tensor):
        axes = "[height width] or [channel height width]"
        levels = image.detach().cpu()
        levels = (levels.float() if levels.is_floating_point() else levels).numpy()
        channels = image.shape[0] if image.dim() == 3 else 1
        fits = image.dim() in (2, 3) and channels in _CHANNELS
        levels = np.moveaxis(levels, 0, -1) if image.dim() == 3 else levels
    else:
        axes = "[height width] or [height width channel]"
        levels, channels = image, image.shape[-1] if image.ndim == 3 else 1
        fits = image.ndim in (2, 3) and channels in _CHANNELS
    if not fits or not image.shape or 0 in image.shape:
        raise ValueError(
            f"an image is {kind_of_value(image)} of shape {tuple(image.shape)}: expected {axes} with "
            "1, 3 or 4 channels; move its axes, or give images one by one in a list."
        )
    levels = _bytes_of(levels, type(image).__name__)
    return Image.fromarray(levels[..., 0] if levels.ndim == 3 and channels == 1 else levels)


def _bytes_of(
    levels: Shaped[np.ndarray, "height width *channel"], kind: str
) -> UInt8[np.ndarray, "height width *channel"]:
    if levels.dtype == np.uint8:
        return levels
    if levels.dtype.kind == "f" and bool(((levels >= 0) & (levels <= 1)).all()):
        return np.rint(levels * 255).astype(np.uint8)
    span = f"{levels.min():g} to {levels.max():g}"
    raise ValueError(
        f"an image is a {kind} of {levels.dtype} from {span}: expected uint8, or real numbers from 0 "
        "to 1; undo its normalisation, or scale it."
    )


def picture_in(file: Any) -> BytesIO:
    """The content of an open binary file, from its beginning.

    Raises:
        ValueError: the file is open in text mode.
    """
    file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError(
            f"an image is a file that gives {type(content).__name__}: expected a binary one; open it "
            'with mode "rb".'
        )
    return BytesIO(content)
