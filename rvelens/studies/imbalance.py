"""How the last token shares its attention out between image and text (Figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image

from rvelens.benchmarks import Item
from rvelens.files.wording import counted, too_few
from rvelens.heads.layers import format_layers
from rvelens.plots import Series, attention_strip, lines, stacked_shares
from rvelens.stats import FEW, Estimate, bootstrap_each, clusters, means
from rvelens.studies.kit.base import Measured, Setup, Shown, Study
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import PaperCell, lookup, model_key
from rvelens.studies.kit.rows import IsImage, Weights, each_row
from rvelens.studies.kit.work import work_of_prompts
from rvelens.tables import Table

# The paper leaves the two layers closest to the input out of what it says of all others.
NEAR_INPUT = 2
_KINDS = ("image", "text", "first")
DEFINED = (
    "Shares are those of equation 1: post-softmax weights of the last prompt token, mean over heads, "
    "summed over image or text tokens; all that is neither image token nor padding is text.",
    "Of that, first token: the share of the first token where it is text. Many language models let "
    "attention rest there that goes nowhere else; the paper does not set it apart.",
    "text / image, sums: the mean share of text over that of the image. text / image, per token: the "
    "mean weight of a text token over that of an image token.",
    "Brackets: 95% bootstrap intervals over photographs.",
)


def _measure(setup: Setup) -> dict[str, Any]:
    """Shares by layer with their intervals, ratios, and every weight of the first question's row."""
    items = setup.benchmark.items
    by_item = each_row(setup, "shares", items, _shares)
    readable = [item for item in items if item.id in by_item]
    cluster = clusters(item.source for item in readable)
    rows = [by_item[item.id] for item in readable]
    image, text, first = (np.array([row[kind] for row in rows]) for kind in _KINDS)
    counts = np.array([[row["n_image"], row["n_text"]] for row in rows], dtype=float)
    example = each_row(setup, "example", readable[:1], _positions)
    return {
        "model": setup.model.name,
        "benchmark": setup.benchmark.name,
        "questions": len(readable),
        "photographs": int(cluster.max()) + 1,
        "left_out": len(items) - len(readable),
        **_estimates(image, text, first, counts, cluster, setup.seed),
        "example": {"id": readable[0].id, "text": readable[0].text, **example[readable[0].id]},
    }


def _shares(item: Item, image: Image.Image, weights: Weights, is_image: IsImage) -> dict[str, Any]:
    """Equation 1 of one question, by layer, and its numbers of tokens."""
    mean = weights.double().mean(dim=1)
    total = mean.sum(dim=-1)
    n_image = int(is_image.sum())
    return {
        "image": (mean[:, is_image].sum(dim=-1) / total).tolist(),
        "text": (mean[:, ~is_image].sum(dim=-1) / total).tolist(),
        "first": (mean[:, 0] / total * bool(~is_image[0])).tolist(),
        "n_image": n_image,
        "n_text": len(is_image) - n_image,
    }


def _positions(
    item: Item, image: Image.Image, weights: Weights, is_image: IsImage
) -> dict[str, Any]:
    mean = weights.double().mean(dim=1)
    rounded = [[float(f"{x:.6g}") for x in row] for row in mean.tolist()]
    return {"weights": rounded, "image": is_image.tolist()}


def _estimates(
    image: Float[np.ndarray, "question layer"],
    text: Float[np.ndarray, "question layer"],
    first: Float[np.ndarray, "question layer"],
    counts: Float[np.ndarray, "question 2"],
    cluster: Int[np.ndarray, " question"],
    seed: int,
) -> dict[str, Any]:
    """By layer and over the later layers; every number from the same draws."""
    n_layers = image.shape[1]
    later = slice(NEAR_INPUT if n_layers > NEAR_INPUT else 0, None)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean_of = means(
        np.hstack([image, text, first, image / counts[:, :1], text / counts[:, 1:], shares])
    )

    def statistic(drawn: Int[np.ndarray, " draw"]) -> Float[np.ndarray, " number"]:
        mean = mean_of(drawn)
        a, b, sink, a_token, b_token = mean[:-2].reshape(5, n_layers)
        with np.errstate(divide="ignore", invalid="ignore"):  # a layer may give the image nothing
            sums, per_token = b / a, b_token / a_token
        extremes = [f(x[later]) for x in (a, sink, sums, per_token) for f in (np.min, np.max)]
        return np.concatenate([a, b, sink, a - mean[-2], sums, per_token, extremes, mean[-2:]])

    flat = [
        estimate.to_json_or_none() for estimate in bootstrap_each(statistic, cluster, seed=seed)
    ]
    names = (*_KINDS, "image_minus_tokens", "sums", "per_token")
    by_layer = {name: flat[n * n_layers : (n + 1) * n_layers] for n, name in enumerate(names)}
    extremes = flat[6 * n_layers :]
    return {
        "by_layer": by_layer,
        "later_layers": format_layers(range(n_layers)[later]),
        "later": {
            name: {"low": extremes[2 * n], "high": extremes[2 * n + 1]}
            for n, name in enumerate(("image", "first", "sums", "per_token"))
        },
        "tokens": {
            "image": extremes[8],
            "text": extremes[9],
            "mean_image": float(counts[:, 0].mean()),
            "mean_text": float(counts[:, 1].mean()),
        },
    }


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Shares by layer, the paper's numbers, and one row of attention position by position."""
    (data,) = measured
    layers, example = data["by_layer"], data["example"]
    columns = (*_KINDS, "sums", "per_token")
    rows = [
        [str(n), *cells] for n, cells in enumerate(zip(*(layers[c] for c in columns), strict=True))
    ]
    tokens = data["tokens"]
    shares = {kind: Series.from_estimates(None, layers[kind]) for kind in ("image", "text")}
    table = Table(
        f"Attention of the last prompt token, {data['model']}, "
        f"{counted(data['questions'], 'question')} of "
        f"{data['benchmark']}",
        (
            "layer",
            "to image",
            "to text",
            "of that, first token",
            "text / image, sums",
            "text / image, per token",
        ),
        [*rows, ["share of tokens", tokens["image"], tokens["text"], None, None, None]],
        notes=(*DEFINED, *_left_out(data)),
    )
    figures = {
        "": stacked_shares(
            {kind: share.y for kind, share in shares.items()},
            {kind: tokens[kind]["value"] for kind in shares},
            low=shares["image"].low,
            high=shares["image"].high,
        ),
        "positions": attention_strip(
            np.array(example["weights"]), np.array(example["image"]), title=example["text"]
        ),
        "ratio": _ratio_figure(layers),
    }
    tables = {"": table, "paper": _compare(data)}
    return Shown(tables, figures, sentences=tuple(_conclude(data)), measured=_measured_cells(data))


def _ratio_figure(layers: Mapping[str, Any]) -> Figure:
    names = {"per token": "per_token", "sums": "sums"}
    return lines(
        {name: Series.from_estimates(None, layers[key]) for name, key in names.items()},
        x_label="layer",
        y_label="attention to text / to image",
        reference=("equal", 1.0),
        log="y",
    )


def _compare(data: Measured) -> Table:
    """Figures 2 and 3 in the paper's words, and what its own shares would make of its ratio."""
    cells = _cells()
    measured = _measured_cells(data)
    (share,), (low, high) = (
        [c.value for c in cells if c.metric == metric]
        for metric in ("image_token_share", "image_attention")
    )
    sums = [(1 - a) / a for a in (high, low)]
    tokens = share / (1 - share)
    table = compare_with_paper(cells, measured, "Paper and measurement")
    notes = [
        f"By the paper's own shares of attention and of tokens, text / image would be {sums[0]:.0f} "
        f"to {sums[1]:.0f} as sums and {sums[0] * tokens:.0f} to {sums[1] * tokens:.0f} per token; "
        "it says 10 to 100, of Figure 2, which plots single tokens; so the ratio per token stands "
        "beside it.",
        "The paper does not name the questions of these figures.",
    ]
    if not measured:
        notes.append(f"Measured on {data['model']}, for which the paper has no number.")
    return Table(table.title, table.columns, table.rows, table.signed, (*table.notes, *notes))


def _cells() -> list[PaperCell]:
    return [*lookup("figures", figure="2"), *lookup("figures", figure="3")]


def _measured_cells(data: Measured) -> dict[PaperCell, Estimate]:
    return {cell: estimate for cell in _cells() if (estimate := _measured(cell, data)) is not None}


def _measured(cell: PaperCell, data: Measured) -> Estimate | None:
    """What was measured of a cell of the paper; None on another model."""
    if cell.model != model_key(data["model"]):
        return None
    if cell.metric == "image_token_share":
        return Estimate(**data["tokens"]["image"])
    name = {"image_attention": "image", "text_over_image_attention": "per_token"}[cell.metric]
    estimate = data["later"][name][cell.get("end")]
    return None if estimate is None else Estimate(**estimate)


def _conclude(data: Measured) -> list[str]:
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    layers, tokens, later = data["by_layer"], data["tokens"], data["later"]
    n = len(layers["image"])
    less = sum(row["high"] < 0 for row in layers["image_minus_tokens"])
    more = sum(row["low"] > 0 for row in layers["image_minus_tokens"])
    under = sum(a["high"] < 0.5 for a in layers["image"])
    low, high = (later["image"][end]["value"] for end in ("low", "high"))
    sentences = [
        f"{tokens['image']['value']:.1%} of the tokens are image tokens; in layers "
        f"{data['later_layers']} they get {low:.1%} to {high:.1%} of the attention.",
        f"Image tokens get less attention than their share of the tokens in {less} of {n} layers, "
        f"more in {more} of them, and less than half of all attention in {under} of them, by 95% "
        "intervals.",
    ]
    low, high = (later["first"][end]["value"] for end in ("low", "high"))
    if high > 0:  # else the image comes first
        sentences.append(
            f"The first token of the input alone gets {low:.1%} to {high:.1%} of the attention there."
        )
    templates = {
        "per_token": "a text token gets {} times the attention of an image token",
        "sums": "all text together gets {} times the attention of the image",
    }
    for key, sentence in templates.items():
        ratios = [later[key][end] for end in ("low", "high")]
        if None not in ratios:
            times = " to ".join(f"{item['value']:.2g}" for item in ratios)
            sentences.append(f"In layers {data['later_layers']}, {sentence.format(times)}.")
    return sentences


def _left_out(data: Measured) -> list[str]:
    n = data["left_out"]
    sentence = f"Left out, because their pictures could not be read: {counted(n, 'question')}."
    return [sentence] if n else []


STUDY = Study(
    "imbalance",
    "Figures 2 and 3",
    "attention of the last token to text and image tokens, by layer, and their numbers",
    _measure,
    _show,
    work=lambda setup: work_of_prompts(len(setup.benchmark.items), 3 * setup.model.n_layers),
)
