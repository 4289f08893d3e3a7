"""Which heads are sensitive to the verb, how surely, and from how many pairs (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image

from rvelens.files.wording import counted, too_few
from rvelens.heads.layers import format_layers
from rvelens.heads.pair import ContrastivePair
from rvelens.heads.profile import ARSProfile
from rvelens.plots import Series, ars_heatmap, lines
from rvelens.stats import FEW, above, bootstrap_each, clusters, format_change, means
from rvelens.studies.ars_map.agreement import (
    agreement,
    agreement_figure,
    conclude_agreement,
    other_ranking,
)
from rvelens.studies.ars_map.stability import SETTLED, stability
from rvelens.studies.kit.base import Measured, Setup, Shown, Study, Work
from rvelens.studies.kit.pairs import by_pair
from rvelens.studies.kit.work import work_of_prompts
from rvelens.tables import Table


def _measure(setup: Setup) -> dict[str, Any]:
    """ARS of every head, estimates over the pairs, agreement with another ranking, stability."""
    model, options = setup.model, setup.options
    if options["k"] < 1 or options["n_draws"] < 50:
        raise ValueError(
            f"k={options['k']} and n_draws={options['n_draws']}: expected k of at least 1 and at "
            "least 50 draws; pass larger numbers."
        )
    other = other_ranking(model, options["against"])
    per_pair = by_pair(setup, "ars", "pairs")
    cluster = photographs_of(setup.pairs)
    scores = per_pair.mean(axis=0)
    k = min(options["k"], model.n_heads // 2)
    return {
        "model": model.name,
        "pairs": len(per_pair),
        "photographs": int(cluster.max()) + 1,
        "k": k,
        "n_heads": model.n_heads,
        "scores": [[round(x, 6) for x in layer] for layer in scores.tolist()],
        **_by_layer(per_pair, cluster, setup.seed),
        "agreement": other
        and {"with": other[0], **agreement(per_pair, other[1], cluster, setup.seed)},
        "stability": stability(per_pair, k, options["n_draws"], setup.seed),
    }  # fmt: skip


def _work(setup: Setup) -> Work:
    """Both texts of every pair; a number for each head is stored."""
    heads = setup.model.n_layers * setup.model.n_heads
    return replace(work_of_prompts(len(setup.pairs), heads), prompts=2 * len(setup.pairs))


def photographs_of(pairs: Sequence[ContrastivePair]) -> Int[np.ndarray, " pair"]:
    """A number for the picture of each pair, the same where they have it in common."""
    images = (pair.image for pair in pairs)
    return clusters(id(image) if isinstance(image, Image.Image) else str(image) for image in images)


def _by_layer(
    per_pair: Float[np.ndarray, "pair layer head"], cluster: Int[np.ndarray, " pair"], seed: int
) -> dict[str, Any]:
    """Mean over heads by layer, its quartiles over pairs, and how far middle layers lie above."""
    layers = per_pair.mean(axis=2)
    middle, outer = thirds(layers.shape[1])
    columns = layers
    if middle:
        gap = layers[:, middle].mean(axis=1) - layers[:, outer].mean(axis=1)
        columns = np.column_stack([layers, gap])
    estimates = [
        estimate.to_json_or_none()
        for estimate in bootstrap_each(means(columns), cluster, seed=seed)
    ]
    quartiles = np.quantile(layers, [0.25, 0.5, 0.75], axis=0)
    return {
        "by_layer": estimates[: layers.shape[1]],
        "quartiles": [[round(x, 6) for x in row] for row in quartiles.T.tolist()],
        "middle": {"layers": middle, "minus_outer": estimates[-1] if middle else None},
    }


def thirds(n_layers: int) -> tuple[list[int], list[int]]:
    """The middle third of a model's layers, and all others; no middle below three layers."""
    if n_layers < 3:
        return [], list(range(n_layers))
    middle = list(range(round(n_layers / 3), round(2 * n_layers / 3)))
    return middle, [layer for layer in range(n_layers) if layer not in middle]


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """The map of heads, layers, agreement, and how many pairs a ranking takes."""
    (data,) = measured
    profile = ARSProfile.from_scores(torch.tensor(data["scores"]))
    figures = {
        "": ars_heatmap(profile, sort=True),
        "heads": ars_heatmap(profile),
        "layers": _layers_figure(data),
    }
    tables = {"": _layers_table(data)}
    if data["stability"]["n"]:
        figures["stability"] = _stability_figure(data)
        tables["stability"] = _stability_table(data)
    if data["agreement"]:
        figures["agreement"] = agreement_figure(data)
    sentences = _conclude_middle(data), conclude_agreement(data), _conclude_pairs(data)
    return Shown(tables, figures, sentences=sentences)


def _layers_table(data: Measured) -> Table:
    scores = np.array(data["scores"])
    top = np.argsort(-scores, axis=1, kind="stable")[:, : data["k"]]
    other = data["agreement"]
    rows = [
        [str(n), mean, q1, q3, ", ".join(map(str, heads))]
        for n, (mean, (q1, _, q3), heads) in enumerate(
            zip(data["by_layer"], data["quartiles"], top.tolist(), strict=True)
        )
    ]
    columns = ("layer", "mean ARS", "lower quartile", "upper quartile", "most sensitive heads")
    if other:
        rows = [[*row, rho] for row, rho in zip(rows, other["by_layer"], strict=True)]
        rows.append(["mean", None, None, None, "", other["mean"]])
        columns += ("rank agreement",)
    notes = [
        "Mean over the heads of a layer. Brackets: 95% bootstrap intervals over photographs; "
        "quartiles: over the pairs.",
        "ARS, equation 3: from 0 to 2, and 1.41 for maps of equal norm without a token in common.",
    ]
    if other:
        notes.append(
            "Rank agreement: Spearman's correlation over the heads of a layer with "
            f"{other['with']}; pairs that are drawn twice count twice, which makes draws agree a "
            "little less than all pairs."
        )
    title = f"ARS by layer, {data['model']}, {counted(data['pairs'], 'pair')}"
    return Table(title, columns, rows, frozenset({"rank agreement"}), tuple(notes))


def _layers_figure(data: Measured) -> Figure:
    q1, middle, q3 = np.array(data["quartiles"]).T
    return lines(
        {
            "mean, 95% interval": Series.from_estimates(None, data["by_layer"], "rve"),
            "median and quartiles of pairs": Series(middle, low=q1, high=q3, role="control"),
        },
        x_label="layer",
        y_label="ARS, mean over heads",
    )


def _stability_table(data: Measured) -> Table:
    overlaps = data["stability"]
    rows = [
        [str(n), whole, halves]
        for n, whole, halves in zip(
            overlaps["n"], overlaps["whole"], overlaps["halves"], strict=True
        )
    ]
    k = data["k"]
    return Table(
        f"Overlap of each layer's {k} most sensitive heads, by number of pairs",
        ("pairs", "with all pairs", "two disjoint samples"),
        rows,
        notes=(
            f"Share of {k} heads in common, mean over layers and {overlaps['n_draws']} draws; "
            "brackets: the middle 95% of the draws.",
            f"By chance {k / data['n_heads']:.2f}. Samples of nearly all pairs overlap with all "
            "pairs by construction; disjoint ones do not.",
        ),
    )


def _stability_figure(data: Measured) -> Figure:
    overlaps = data["stability"]
    names = {"with all pairs": ("whole", "control"), "disjoint samples": ("halves", "rve")}
    return lines(
        {
            name: Series.from_estimates(np.array(overlaps["n"]), overlaps[key], role)
            for name, (key, role) in names.items()
        },
        x_label="contrastive pairs",
        y_label=f"overlap of the top {data['k']} heads",
        reference=("chance", data["k"] / data["n_heads"]),
        log="x",
    )


def _conclude_middle(data: Measured) -> str:
    layers, gap = data["middle"]["layers"], data["middle"]["minus_outer"]
    if gap is None:
        return "The model has too few layers for a middle third."
    term = f"the mean ARS of the middle third (layers {format_layers(layers)}) minus that of the others"
    if data["photographs"] < FEW:
        return (
            f"{too_few(data['photographs'], 'photograph')} to say which layers are more sensitive."
        )
    claim = {
        True: "Middle layers are more sensitive",
        False: "Middle layers are less sensitive",
        None: "That middle layers are more sensitive is not shown",
    }[above(gap)]
    return f"{claim}: {term} is {format_change(gap)}."


def _conclude_pairs(data: Measured) -> str:
    overlaps, k = data["stability"], data["k"]
    if not overlaps["n"]:
        return f"{too_few(data['pairs'], 'pair')} to say how many a ranking takes."
    honest, by_construction = overlaps["settled_halves"], overlaps["settled_whole"]
    if honest is not None:
        sentence = (
            f"Two disjoint samples share {SETTLED:.0%} of the top {k} heads from "
            f"{counted(honest, 'pair')} on"
        )
    else:
        last = max(n for n, share in zip(overlaps["n"], overlaps["halves"], strict=True) if share)
        sentence = (
            f"Up to {counted(last, 'pair')}, two disjoint samples do not share "
            f"{SETTLED:.0%} of the top {k} "
            "heads: more pairs are needed than there are"
        )
    if by_construction is None:
        return f"{sentence}."
    return (
        f"{sentence}; samples of these pairs share as much with all of them from {by_construction} "
        "on."
    )


STUDY = Study(
    "ars-map",
    "Figure 5",
    "ARS of every layer and head, its spread, agreement with a ranking, and stability",
    _measure,
    _show,
    needs=frozenset({"pairs"}),
    options={"k": 5, "n_draws": 50, "against": ""},
    work=_work,
)
