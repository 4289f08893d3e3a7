"""Where the image tokens of a question lie, and how well heads find the region of its answer."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rvelens.benchmarks import Item
from rvelens.grid import ImageGrid
from rvelens.localisation import enrichment, region_auc
from rvelens.model import HookedLVLM

REGION = "verb"  # Where one must look to answer, in benchmarks that know it.


def grid_of(model: HookedLVLM, image: Image.Image) -> ImageGrid:
    """Where the tokens of an image lie.

    Raises:
        ValueError: a model whose image tokens have no place in the image.
    """
    grid = model.image_grid(image)
    if grid is None:
        raise ValueError(
            f"the image tokens of {model.family.name} have no place in the image: expected a model "
            "with a patch grid for attention on pictures; `rvelens families` lists them."
        )
    return grid


def find_region(
    grid: ImageGrid,
    item: Item,
    image: Image.Image,
    attention: Float[Tensor, "layer head image"],
) -> dict[str, list[list[float | None]]]:
    """Each head's "auc" and "enrichment" for one question, see `rvelens.localisation`.

    None where there is no such number, as where the region was cropped away.
    """
    # Newline tokens show nothing, so they are neither inside nor outside.
    placed = np.isfinite(grid.middles(image.size)[:, 0])
    boxes = {} if item.regions is None else item.regions()
    inside = grid.tokens_in(boxes[REGION], image.size)[placed]
    shown, region = attention[..., placed][None].double(), torch.as_tensor(inside)[None]
    return {
        name: [[x if np.isfinite(x) else None for x in row] for row in values[0].tolist()]
        for name, values in (
            ("auc", region_auc(shown, region)),
            ("enrichment", enrichment(shown, region)),
        )
    }
