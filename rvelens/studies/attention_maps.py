"""Where the most and the least sensitive heads of a layer look (Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from rvelens.benchmarks import Benchmark, Item
from rvelens.heads.layers import PRESET, format_layers, scaled_layers
from rvelens.plots import head_overlays, overlay
from rvelens.studies.kit.base import Measured, Setup, Shown, Study
from rvelens.studies.kit.regions import ANSWER_REGION, find_region, grid_of
from rvelens.studies.kit.rows import IsImage, Weights, each_row
from rvelens.studies.kit.work import work_of_prompts
from rvelens.tables import Table
from rvelens.tokens.grid import Box, ImageGrid


def _measure(setup: Setup) -> dict[str, Any]:
    """Attention of some heads of one layer to every image token of one question."""
    profile, options = setup.ranking, setup.options
    item = _find_question(setup.benchmark, options["question"])
    image = item.load()
    grid = grid_of(setup.model, image)
    layer, why = _layer(setup, options["layer"])
    n = options["n"]
    if not 1 <= n <= profile.n_heads // 2:
        raise ValueError(
            f"n={n} of {profile.n_heads} heads: expected 1 to {profile.n_heads // 2}, so that the "
            "most and the least sensitive heads are different; choose another n."
        )
    heads = {"most": profile.top(layer, n), "least": profile.bottom(layer, n)}

    def read(item: Item, image: Image.Image, weights: Weights, is_image: IsImage) -> dict[str, Any]:
        of_layer = weights[layer][:, is_image]
        return {
            group: {str(head): of_layer[head].tolist() for head in numbers}
            for group, numbers in heads.items()
        }

    maps = each_row(setup, "maps", [item], read)[item.id]
    scores = None if profile.mean is None else profile.scores[layer].tolist()
    return {
        "model": setup.model.name,
        "benchmark": setup.benchmark.name,
        "question": {"id": item.id, "text": item.text, "truth": item.truth},
        "layer": layer,
        "why": why,
        "scores": scores
        and {str(h): round(scores[h], 6) for numbers in heads.values() for h in numbers},
        "attention": maps,
        "heads": [
            _head(item, image, grid, group, int(head), attention)
            for group, by_head in maps.items()
            for head, attention in by_head.items()
        ],
    }


def _find_question(benchmark: Benchmark, name: str) -> Item:
    if not name:
        return benchmark.items[0]
    question = next((item for item in benchmark.items if item.id == name), None)
    if question is None:
        raise ValueError(
            f"question {name!r} is not among the {len(benchmark.items)} of {benchmark.name}: "
            f"expected an id such as {benchmark.items[0].id!r}; leave `question` out to use this "
            "one."
        )
    return question


def _layer(setup: Setup, layer: int) -> tuple[int, str]:
    """The layer to show, and why this one."""
    n_layers = setup.model.n_layers
    if not -1 <= layer < n_layers:
        raise ValueError(
            f"layer={layer} of a model of {n_layers} layers: expected 0 to {n_layers - 1}, or -1 "
            "for the most sensitive layer; correct it."
        )
    if layer >= 0:
        return layer, "as asked for"
    if setup.ranking.mean is None:
        raise ValueError(
            "layer=-1 with a ranking that has no scores: expected a measured profile; choose a "
            "layer."
        )
    preset = scaled_layers(*PRESET, n_layers)
    best = max(preset, key=lambda n: float(setup.ranking.scores[n].mean()))
    return best, f"the highest mean ARS among layers {format_layers(preset)}, RVE's preset"


def _head(
    item: Item, image: Image.Image, grid: ImageGrid, group: str, head: int, attention: list[float]
) -> dict[str, Any]:
    """How much of its attention a head gives the image, and whether it finds the region."""
    row = {
        "group": group,
        "head": int(head),
        "image": sum(attention),
        "auc": None,
        "enrichment": None,
    }
    if item.regions is None:
        return row
    measures = find_region(grid, item, image, torch.tensor(attention)[None, None])
    return row | {name: values[0][0] for name, values in measures.items()}


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """The heads on the picture, and the means over each group of them."""
    (data,) = measured
    item = _find_question(setup.benchmark, data["question"]["id"])
    image = item.load()
    grid = grid_of(setup.model, image)
    heads = {
        group: {int(head): np.array(a) for head, a in by_head.items()}
        for group, by_head in data["attention"].items()
    }
    scores = data["scores"] and {int(head): score for head, score in data["scores"].items()}
    title = data["question"]["text"]
    figures = {
        "": head_overlays(
            image,
            heads["most"],
            heads["least"],
            grid,
            layer=data["layer"],
            scores=scores,
            title=title,
        )
    }
    for name, group in (("sensitive", "most"), ("insensitive", "least")):
        maps = list(heads[group].values())
        figures[name] = overlay(
            image,
            np.mean(maps, axis=0),
            grid,
            title=f"layer {data['layer']}, mean of {len(maps)} {name} heads",
        )
    boxes = () if item.regions is None else item.regions()[ANSWER_REGION]
    for figure in figures.values():
        outline(figure, boxes, image.size)
    return Shown({"": _table(data)}, figures, sentences=_conclude(data, item.regions is not None))


def outline(figure: Figure, boxes: Sequence[Box], size: tuple[int, int]) -> None:
    """Outline boxes, in pixels of an image of that size, on every picture of a figure."""
    for axes in (a for a in figure.axes if a.images):
        for x0, y0, x1, y1 in boxes:
            box = Rectangle(
                (x0 / size[0], 1 - y1 / size[1]),
                (x1 - x0) / size[0],
                (y1 - y0) / size[1],
                transform=axes.transAxes,
                fill=False,
                edgecolor="white",
                linewidth=1.0,
                path_effects=[withStroke(linewidth=2.2, foreground="black")],
            )
            axes.add_patch(box)


def _table(data: Measured) -> Table:
    has_region = any(row["auc"] is not None for row in data["heads"])
    columns = ("head", "sensitivity", "ARS", "attention to image")
    rows = [
        [
            str(row["head"]), row["group"], (data["scores"] or {}).get(str(row["head"])), row["image"],
            *((row["auc"], row["enrichment"]) if has_region else ()),
        ]
        for row in data["heads"]
    ]  # fmt: skip
    notes = ["One question: what heads do in general, the study `localisation` tells."]
    if has_region:
        columns += ("region AUC", "mass / area")
        notes.append(
            "Region AUC: probability that a token of the true region gets more attention than "
            "another, 0.5 by chance; mass / area: its share of the image's attention over its share "
            "of the image's tokens, 1 by chance."
        )
    title = f"Heads of layer {data['layer']}, {data['model']}, {data['question']['id']}"
    return Table(title, columns, rows, notes=tuple(notes))


def _conclude(data: Measured, has_region: bool) -> tuple[str, ...]:
    introduction = (
        f"Layer {data['layer']}: {data['why']}. The picture is question {data['question']['id']}."
    )
    outlined = (
        "Outlined is where one must look to answer."
        if has_region
        else f"{data['benchmark']} does not say where one must look, so nothing is outlined."
    )
    return introduction, outlined


STUDY = Study(
    "attention-maps",
    "Figure 6",
    "image overlays of the most and least sensitive heads of a layer",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    options={"layer": -1, "n": 3, "question": ""},
    work=lambda setup: work_of_prompts(1),
)
