"""A rectangle of the image as a method: the oracle, which is told where to look."""

from __future__ import annotations

import torch

from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import format_layers, parse_layers
from rvelens.hooks import region_hooks
from rvelens.interventions.method import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.tokens.grid import Box, ImageGrid


@refuse_wrong_types
def parse_region(text: str, size: tuple[int, int]) -> Box:
    """A rectangle in an image of that width and height, from "x0,y0,x1,y1" in pixels.

    Raises:
        ValueError: not four numbers, an empty rectangle, or one that is not within the image.
    """
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"region {text!r}: expected four numbers, X0,Y0,X1,Y1 in pixels of the image; correct it."
        ) from error
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise ValueError(
            f"region {text!r} in an image of {size[0]} x {size[1]} pixels: expected 0 <= X0 < X1 "
            f"<= {size[0]} and 0 <= Y0 < Y1 <= {size[1]}; correct it."
        )
    return x0, y0, x1, y1


@refuse_wrong_types
def region_method(
    model: HookedLVLM,
    grid: ImageGrid,
    box: Box,
    size: tuple[int, int],
    *,
    layers: str = "preset",
    beta: float = 1.0,
) -> Method:
    """The oracle: every head's scores of the tokens in a rectangle raised, as RVE would.

    Args:
        model: the hooked model.
        grid: where the image tokens lie, from `model.image_grid(image)`.
        box: (x0, y0, x1, y1) in pixels; a token is inside if the middle of its patch is.
        size: width and height of the image in pixels.
        layers: as `rvelens.heads.layers.parse_layers` reads them.
        beta: strength, as in RVE (equation 6 with the rectangle as its mask).

    Raises:
        ValueError: a rectangle that no image token sees, or settings outside their range.
    """
    chosen = parse_layers(layers, None, model.n_layers)
    inside = torch.from_numpy(grid.tokens_in([box], size))[None]
    if not bool(inside.any()):
        raise ValueError(
            f"no image token sees the region {','.join(f'{x:g}' for x in box)}, which the "
            "processor crops away: expected a region within the crop; choose one nearer to the "
            "middle."
        )
    parameters = {
        "layers": format_layers(chosen),
        "beta": beta,
        "region": list(box),
        "tokens": int(inside.sum()),
    }
    return Method("region", parameters, tuple(region_hooks(inside, chosen, beta)))
