"""Patch grids: from a vector over image tokens back to a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from rvelens.files.arguments import refuse_wrong_types

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Tile:
    """One rectangle of patches, row by row in the token order.

    Attributes:
        start: index of its first token among the image's tokens.
        rows, columns: patches down and across.
        stride: tokens from one row to the next; `columns + 1` where a newline token ends a row.
        box: the part of the original image it covers, (x0, y0, x1, y1) as fractions of its width
            and height; may reach beyond 0..1 where the processor padded.
    """

    start: int
    rows: int
    columns: int
    stride: int
    box: Box = WHOLE

    def values(self, tokens: Float[np.ndarray, " image"]) -> Float[np.ndarray, "rows columns"]:
        """This tile's values out of a vector over all image tokens."""
        index = self.start + np.arange(self.rows)[:, None] * self.stride + np.arange(self.columns)
        return tokens[index]

    def middles(
        self, size: tuple[int, int]
    ) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " rows"]]:
        """Where the middles of its columns and of its rows lie in an image of that size."""
        (x0, y0, x1, y1), (width, height) = self.box, size
        x = (np.arange(self.columns) + 0.5) * ((x1 - x0) * width) / self.columns
        y = (np.arange(self.rows) + 0.5) * ((y1 - y0) * height) / self.rows
        return x0 * width + x, y0 * height + y


@dataclass(frozen=True)
class ImageGrid:
    """Where each token of one image lies: an overview tile and, in some families, finer tiles."""

    n_tokens: int
    tiles: tuple[Tile, ...]

    @refuse_wrong_types
    def picture(
        self, tokens: Float[np.ndarray, " image"], width: int, height: int
    ) -> Float[np.ndarray, "height width"]:
        """Paint a vector over image tokens onto the original image's pixels.

        Where finer tiles overlap the overview, the larger value is shown. Pixels that the processor
        cropped away are NaN: no token sees them.

        Raises:
            ValueError: the vector is not as long as the image has tokens, or is not finite.
        """
        if tokens.shape != (self.n_tokens,):
            raise ValueError(
                f"a vector of shape {tokens.shape} for an image of {self.n_tokens} tokens: "
                f"expected ({self.n_tokens},); pass one number per image token."
            )
        if not np.isfinite(tokens).all():
            raise ValueError(
                f"{int((~np.isfinite(tokens)).sum())} of {self.n_tokens} numbers are NaN or infinite: "
                "expected a finite number per image token; look at where they come from."
            )
        canvas = np.full((height, width), np.nan)
        for tile in self.tiles:
            _paint(canvas, tile.values(tokens), tile.box)
        return canvas

    @refuse_wrong_types
    def middles(self, size: tuple[int, int]) -> Float[np.ndarray, "image xy"]:
        """The middle of each token's patch, in pixels of an image of that width and height.

        NaN for tokens without a patch, such as newlines. Where the processor padded, middles lie
        outside of the image.
        """
        centres = np.full((self.n_tokens, 2), np.nan)
        tokens = np.arange(self.n_tokens, dtype=float)
        for tile in self.tiles:
            x, y = tile.middles(size)
            centres[tile.values(tokens).astype(int)] = np.stack(np.meshgrid(x, y), axis=-1)
        return centres

    @refuse_wrong_types
    def tokens_in(self, boxes: Sequence[Box], size: tuple[int, int]) -> Bool[np.ndarray, " image"]:
        """Tokens whose patch has its middle in one of the boxes; the nearest token of a small box.

        A box whose middle no token sees, since the processor cropped it away, has no nearest token.

        Args:
            boxes: (x0, y0, x1, y1) in pixels.
            size: width and height of the image in pixels.
        """
        x, y = self.middles(size).T
        mask = np.zeros(self.n_tokens, dtype=bool)
        for x0, y0, x1, y1 in boxes:
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
            middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
            if not inside.any() and self._sees(middle_x / size[0], middle_y / size[1]):
                inside[np.nanargmin((x - middle_x) ** 2 + (y - middle_y) ** 2)] = True
            mask |= inside
        return mask

    def _sees(self, x: float, y: float) -> bool:
        """Whether a point, in fractions of the image, lies in a tile."""
        boxes = [tile.box for tile in self.tiles]
        return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


@dataclass(frozen=True)
class VideoGrid:
    """Where the visual tokens of one video lie: by time, row and column.

    Attributes:
        frames: steps in time; a model may merge several frames of the video into one.
        rows, columns: patches down and across a frame.
        n_tokens: visual tokens of the video; those behind the last patch, such as newlines, have no
            place in it.
    """

    frames: int
    rows: int
    columns: int
    n_tokens: int

    def volume(self, tokens: Float[np.ndarray, " image"]) -> Float[np.ndarray, "frame row column"]:
        """A vector over the video's tokens, in their place.

        Raises:
            ValueError: the vector is not as long as the video has tokens.
        """
        if tokens.shape != (self.n_tokens,):
            raise ValueError(
                f"a vector of shape {tokens.shape} for a video of {self.n_tokens} tokens: expected "
                f"({self.n_tokens},); pass one number per visual token."
            )
        patches = tokens[: self.frames * self.rows * self.columns]
        return patches.reshape(self.frames, self.rows, self.columns)


def _paint(canvas: NDArray[np.float64], values: NDArray[np.floating], box: Box) -> None:
    height, width = canvas.shape
    x = _patch_of(width, box[0], box[2], values.shape[1])
    y = _patch_of(height, box[1], box[3], values.shape[0])
    inside = (y >= 0)[:, None] & (x >= 0)
    painted = values[np.clip(y, 0, None)][:, np.clip(x, 0, None)]
    canvas[inside] = np.fmax(canvas, painted)[inside]


def _patch_of(pixels: int, start: float, stop: float, patches: int) -> NDArray[np.int64]:
    """For each pixel along one axis the patch it falls into; -1 outside the box."""
    position = ((np.arange(pixels) + 0.5) / pixels - start) / (stop - start) * patches
    patch = np.floor(position).astype(np.int64)
    return np.where((position >= 0) & (patch < patches), patch, -1)


def single_tile(rows: int, columns: int, box: Box = WHOLE) -> ImageGrid:
    """The grid of an image that is one rectangle of patches."""
    return ImageGrid(rows * columns, (Tile(0, rows, columns, columns, box),))


def seen_box(image_processor: Any, width: int, height: int) -> Box:
    """The part of a `width` x `height` image that a one-crop image processor shows the model.

    Undoes, in the order of transformers' processors, padding to a square (`do_pad`), a resize of
    the shorter edge or to a fixed size (`do_resize`), and the central crop (`do_center_crop`).
    Without a processor: CLIP's, the central square.
    """
    if image_processor is None:
        return center_crop_box(width, height)
    if getattr(image_processor, "do_pad", None):
        return pad_to_square_box(width, height)
    if not getattr(image_processor, "do_center_crop", None):
        return WHOLE
    shorter = image_processor.size.get("shortest_edge")
    crop = image_processor.crop_size
    if shorter is None:
        resized = (image_processor.size["width"], image_processor.size["height"])
    else:
        edge = min(width, height)
        resized = (int(shorter * width / edge), int(shorter * height / edge))
    x0, x1 = _central(resized[0], crop["width"])
    y0, y1 = _central(resized[1], crop["height"])
    return (x0, y0, x1, y1)


def _central(length: int, crop: int) -> tuple[float, float]:
    """Start and end of a central crop, as fractions of the length; beyond 0..1 where it pads."""
    start = (length - crop) // 2
    return start / length, (start + crop) / length


def tiled(
    n_tokens: int, rows: int, columns: int, side: int, *, overview: Literal["first", "last"]
) -> ImageGrid | None:
    """A squashed overview and `rows` x `columns` equal tiles, each of `side` x `side` patches.

    Tiles and overview follow one another in the token order, tiles row by row. None where this does
    not add up to `n_tokens`.
    """
    n_tiles = rows * columns
    if n_tokens != (n_tiles + 1) * side * side:
        return None
    first = side * side if overview == "first" else 0
    tiles = [
        Tile(
            first + n * side * side,
            side,
            side,
            side,
            (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows),
        )
        for n, (r, c) in enumerate(np.ndindex(rows, columns))
    ]
    whole = Tile(0 if overview == "first" else n_tiles * side * side, side, side, side)
    return ImageGrid(n_tokens, (whole, *tiles))


def square_side(n: int) -> int | None:
    """The side of a square of `n` patches; None if there is no such square."""
    side = math.isqrt(max(n, 0))
    return side if side and side * side == n else None


def center_crop_box(width: int, height: int) -> Box:
    """The part of an image left by CLIP's resize of the shorter edge and central square crop."""
    side = min(width, height)
    x, y = (width - side) / 2 / width, (height - side) / 2 / height
    return (x, y, 1 - x, 1 - y)


def pad_to_square_box(width: int, height: int) -> Box:
    """The square around an image that was padded on both sides of its shorter edge."""
    side = max(width, height)
    x, y = (side - width) / 2 / width, (side - height) / 2 / height
    return (-x, -y, 1 + x, 1 + y)
