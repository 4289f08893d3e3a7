"""Which view of a prediction finds the region where the answer is to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rvelens.files.wording import counted, too_few
from rvelens.plots import Panel, forest
from rvelens.stats import FEW, above, bootstrap_each, clusters, format_change, means
from rvelens.studies.kit.base import Batch, Measured, Setup, Shown, Study
from rvelens.studies.kit.regions import check_regions, find_region, grid_of
from rvelens.studies.kit.rows import check_read
from rvelens.tables import Table
from rvelens.views import VIEWS, view_images

_MEASURES = {"auc": 0.5, "enrichment": 1.0}  # and what chance gives
_COLUMNS = {
    "auc": "region AUC",
    "gain": "AUC - attention's",
    "enrichment": "mass / area",
}


def _measure(setup: Setup) -> dict[str, Any]:
    """AUC and enrichment of each view on each question, and the difference of AUC to attention."""
    check_regions(setup)  # before the work
    model, benchmark = setup.model, setup.benchmark

    def compute(batch: Batch) -> list[Any]:
        if not batch.items:
            return []
        maps = {
            name: view_images(model, batch.images, batch.texts, name, prompt=setup.decoding.prompt)
            for name in VIEWS
        }
        rows = []
        for n, (item, image) in enumerate(zip(batch.items, batch.images, strict=True)):
            grid = grid_of(model, image)
            of_view = {
                name: find_region(grid, item, image, view_maps[n, : grid.n_tokens][None, None])
                for name, view_maps in maps.items()
            }
            rows.append(
                {v: {m: figures[m][0][0] for m in _MEASURES} for v, figures in of_view.items()}
            )
        return rows

    by_item = setup.map_items("views", benchmark.items, compute)
    check_read(setup, benchmark.items, by_item)
    readable = [item for item in benchmark.items if item.id in by_item]
    cluster = clusters(item.source for item in readable)
    values = {
        m: np.array([[by_item[item.id][v][m] for v in VIEWS] for item in readable], dtype=float)
        for m in _MEASURES
    }
    values["gain"] = values["auc"] - values["auc"][:, :1]
    return {
        "model": model.name,
        "benchmark": benchmark.name,
        "questions": len(readable),
        "photographs": int(cluster.max()) + 1,
        "left_out": len(benchmark.items) - len(readable),
        "views": {name: view.about for name, view in VIEWS.items()},
        **{name: _estimates(by_view, cluster, setup.seed) for name, by_view in values.items()},
    }


def _estimates(
    values: Float[np.ndarray, "question view"], cluster: Any, seed: int
) -> list[dict[str, float] | None]:
    return [x.to_json_or_none() for x in bootstrap_each(means(values), cluster, seed=seed)]


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """The views in a table and a figure, and what is confirmed of them."""
    (data,) = measured
    return Shown({"": _table(data)}, {"": _figure(data)}, sentences=tuple(_conclude(data)))


def _table(data: Measured) -> Table:
    rows = [
        [
            name,
            data["auc"][n],
            None if name == "attention" else data["gain"][n],
            data["enrichment"][n],
        ]
        for n, name in enumerate(data["views"])
    ]
    notes = [
        "Of the model's likeliest next token. Means over questions; brackets: 95% bootstrap intervals "
        "over scenes.",
        "Region AUC: probability that a token inside the region of the asked verb has more than one "
        "outside; chance is 0.5. Mass / area: the region's share of a view's sum over its share of "
        "the image's tokens; chance is 1.",
        *(f"{name}: {about}." for name, about in data["views"].items()),
    ]
    if data["left_out"]:
        notes.append(
            "Left out, because their pictures could not be read: "
            f"{counted(data['left_out'], 'question')}."
        )
    title = (
        f"Views by how well they find the region, {data['model']}, "
        f"{counted(data['questions'], 'question')} "
    )
    title += f"of {data['benchmark']}"
    return Table(
        title, ("view", *_COLUMNS.values()), rows, frozenset({_COLUMNS["gain"]}), tuple(notes)
    )


def _figure(data: Measured) -> Figure:
    gain = [None, *data["gain"][1:]]
    return forest(
        list(data["views"]),
        [
            Panel("region AUC", data["auc"], 0.5),
            Panel("AUC - attention's", gain),
            Panel("mass / area", data["enrichment"], 1.0),
        ],
        title=f"{data['model']}, {counted(data['questions'], 'question')} of {data['benchmark']}",
    )


def _conclude(data: Measured) -> list[str]:
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    names = list(data["views"])
    finds = [n for n, auc in zip(names, data["auc"], strict=True) if auc and above(auc, 0.5)]
    gains = {
        n: gain for n, gain in zip(names, data["gain"], strict=True) if gain and n != "attention"
    }
    sentences = [
        f"Above chance: {', '.join(finds) or 'none'}, by region AUC.",
        *(f"{name} {_claim(gain)} ({format_change(gain)})." for name, gain in gains.items()),
        "Intervals are over scenes, for this model and the token that it would generate; the answers "
        "are yes or no, which name nothing in the picture.",
    ]
    return sentences


def _claim(gain: Mapping[str, float]) -> str:
    return {
        True: "finds the region better than attention",
        False: "finds the region worse than attention",
        None: "is not shown to differ from attention",
    }[above(gain)]


STUDY = Study(
    "views",
    "",
    "how well attention, its gradients, relevancy, rollout and the logit lens find the region",
    _measure,
    _show,
)
