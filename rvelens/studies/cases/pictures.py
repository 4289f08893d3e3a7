"""Pictures of a case as text: small, embedded, with the enhanced tokens over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from PIL import Image

from rvelens.benchmarks import Item
from rvelens.files.atomic import one_line
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.tokens.grid import ImageGrid
from rvelens.tokens.heat import mixed, small, to_data_uri

__all__ = [
    "Pictures",
    "TokensByLayer",
    "colour",
    "draw_cases",
    "n_layers",
    "small",
    "tinted",
    "to_data_uri",
]

# By layer, numbers of image tokens: {"14": {"enhanced": [...], "removed": [...]}}.
TokensByLayer = Mapping[str, Mapping[str, list[int]]]


@dataclass(frozen=True)
class Pictures:
    """What is to be seen of one case, as data URIs.

    Attributes:
        plain: the picture.
        marked: the picture with tokens marked, by "enhanced" and "removed"; {} without a patch grid or
            for a method that enhances no tokens.
        layers: how many tokens each layer "enhanced" and "removed".
        reason: why there is no picture or none that is marked; "" if there are.
    """

    plain: str | None
    marked: Mapping[str, str]
    layers: Mapping[str, Mapping[str, int]]
    reason: str


def draw_cases(model: HookedLVLM, item: Item, layers: TokensByLayer | None) -> Pictures:
    """The pictures of a question; `layers` is None where the method enhances no tokens."""
    counts = {
        layer: {k: len(v) for k, v in tokens.items()} for layer, tokens in (layers or {}).items()
    }
    try:
        image = item.load()
    except ValueError as error:
        return Pictures(None, {}, counts, one_line(error))
    picture, grid = small(image), model.image_grid(image)
    if not layers:
        return Pictures(to_data_uri(picture), {}, counts, "")
    if grid is None:
        why = f"The image tokens of {model.family.name} have no place in the picture."
        return Pictures(to_data_uri(picture), {}, counts, why)
    marked = {
        name: to_data_uri(tinted(picture, n_layers(layers, name, grid.n_tokens), grid, len(layers)))
        for name in ("enhanced", "removed")
    }
    return Pictures(to_data_uri(picture), marked, counts, "")


def n_layers(layers: TokensByLayer, name: str, n_tokens: int) -> Float[np.ndarray, " image"]:
    """In how many layers each image token was enhanced or removed."""
    numbers = [np.asarray(tokens[name], dtype=int) for tokens in layers.values()]
    return np.bincount(np.concatenate(numbers), minlength=n_tokens).astype(float)


def colour(count: int, most: int) -> str:
    """The colour of a token that is marked in `count` of `most` layers."""
    r, g, b = (round(255 * x) for x in _shade(np.array([float(count)]), most)[0, :3])
    return f"#{r:02x}{g:02x}{b:02x}"


def _shade(count: Float[np.ndarray, "*any"], most: int) -> Float[np.ndarray, "*any 4"]:
    share = (count - 1) / max(most - 1, 1)
    return np.asarray(colormaps["viridis"](0.15 + 0.85 * share))


def tinted(
    picture: Image.Image, counts: Float[np.ndarray, " image"], grid: ImageGrid, most: int
) -> Image.Image:
    """The picture in pale grey with its marked tokens coloured, darker where no token sees it.

    Args:
        picture: as `small` makes it.
        counts: in how many layers each token is marked.
        grid: where the tokens lie.
        most: layers in all.
    """
    heat = grid.picture(counts, *picture.size)
    marked = np.where(heat > 0, 0.7, 0.0)
    return mixed(picture, heat, _shade(np.nan_to_num(heat), most), marked)
