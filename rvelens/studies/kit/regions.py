"""Where the image tokens of a question lie, and how well heads find the region of its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from rvelens.benchmarks import Item
from rvelens.heads.region import enrichment, region_auc
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.stats import clusters
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.rows import IsImage, Weights, each_row
from rvelens.tokens.grid import ImageGrid

ANSWER_REGION = "verb"  # Where one must look to answer, in benchmarks that know it.


def grid_of(model: HookedLVLM, image: Image.Image) -> ImageGrid:
    """Where the tokens of an image lie.

    Raises:
        ValueError: a model whose image tokens have no place in the image.
    """
    grid = model.image_grid(image)
    if grid is None:
        raise ValueError(
            f"the image tokens of {model.family.name} have no position in the image: expected a "
            "model with a patch grid for attention on pictures; `rvelens families` lists them."
        )
    return grid


def check_regions(setup: Setup) -> None:
    """Raise ValueError where it is not known where the answers are, or which tokens show them."""
    benchmark = setup.benchmark
    unknown = next((item for item in benchmark.items if item.regions is None), None)
    if unknown is not None:
        raise ValueError(
            f"{benchmark.name} does not say where in the picture the answer is ({unknown.id}): "
            "expected a benchmark with ground-truth regions; take action-scenes."
        )
    grid_of(setup.model, benchmark.items[0].load())


def has_regions(setup: Setup) -> bool:
    """Whether it is known where the answer to each question is seen, and which tokens show it."""
    items = setup.benchmark.items
    return all(item.regions is not None for item in items) and (
        setup.model.image_grid(items[0].load()) is not None
    )


def find_region(
    grid: ImageGrid,
    item: Item,
    image: Image.Image,
    attention: Float[Tensor, "layer head image"],
) -> dict[str, list[list[float | None]]]:
    """Each head's "auc" and "enrichment" for one question, see `rvelens.heads.region`.

    And "image", the share of its attention that the image gets. None where there is no such number,
    as where the region was cropped away.
    """
    # Newline tokens show nothing, so they are neither inside nor outside.
    placed = np.isfinite(grid.middles(image.size)[:, 0])
    boxes = {} if item.regions is None else item.regions()
    inside = grid.tokens_in(boxes[ANSWER_REGION], image.size)[placed]
    shown, region = attention[..., placed][None].double(), torch.as_tensor(inside)[None]
    return {
        name: [[x if np.isfinite(x) else None for x in row] for row in values[0].tolist()]
        for name, values in (
            ("auc", region_auc(shown, region)),
            ("enrichment", enrichment(shown, region)),
            ("image", attention.sum(dim=-1)[None].double()),
        )
    }


def each_region(
    setup: Setup,
) -> tuple[Int[np.ndarray, " question"], dict[str, Float[np.ndarray, "question layer head"]]]:
    """Every head's values of `find_region` on every question whose picture can be read.

    The model must have a patch grid, and the benchmark regions.

    Returns:
        a number for the photograph of each question, and values by name, NaN where there is none.
    """
    model = setup.model

    def read(item: Item, image: Image.Image, weights: Weights, is_image: IsImage) -> dict[str, Any]:
        attention = weights[..., is_image]
        of_family = model.family.grid  # what image_grid asks, without preparing the image again
        n_tokens = attention.shape[-1]
        grid = of_family(model.hf_model.config, model.processor, image.size, n_tokens)
        assert grid is not None  # other pictures have one
        return find_region(grid, item, image, attention)

    items = setup.benchmark.items
    by_item = each_row(setup, "heads", items, read)
    readable = [item for item in items if item.id in by_item]
    values = {
        name: np.array([by_item[item.id][name] for item in readable], dtype=float)
        for name in ("auc", "enrichment", "image")
    }
    return clusters(item.source for item in readable), values
