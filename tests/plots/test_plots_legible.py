"""Every figure, of ordinary and of awkward data: no word on another, none beyond the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figure_checks import check_words, smallest_text
from PIL import Image

from rvelens import ARSProfile
from rvelens.plots import (
    PAGE,
    ScoreRow,
    Series,
    ars_heatmap,
    attention_strip,
    bands,
    dots,
    head_overlays,
    layer_profile,
    lines,
    scatter,
    stacked_shares,
    surface,
    timing_bars,
)
from rvelens.tokens.grid import single_tile

NAN = float("nan")
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
LONG = "mask from all heads of llava-hf/llava-v1.6-mistral-7b-hf (control)"
TITLE = (
    "llava-hf/llava-v1.6-mistral-7b-hf on the adversarial part of a benchmark, $5 questions_of_it$"
)


def holes(*shape):
    """Random numbers, some of them missing."""
    values = RNG.normal(0.01, 0.02, shape)
    values[RNG.random(shape) < 0.2] = NAN
    return values


def some_lines(n_lines, n_points, name="line", **more):
    series = {}
    for n in range(n_lines):
        y = holes(n_points)
        series[f"{name} {n}"] = Series(y, np.arange(1.0, n_points + 1), y - 0.01, y + 0.01)
    return lines(series, x_label="x", y_label="accuracy", **more)


def some_names(names):
    y = RNG.random(len(names))
    series = {LONG: Series(y, names), "b": Series(y + 0.01, names)}
    return lines(series, x_label="heads", y_label="accuracy", reference=(LONG, 0.4), title=TITLE)


def a_surface(n_x, n_y, **more):
    x, y = np.geomspace(0.001, 0.5, n_x).round(4), np.linspace(0.1, 3, n_y).round(2)
    labels = {"x_label": "alpha", "y_label": "beta", "z_label": "accuracy"}
    return surface(x, y, holes(n_y, n_x), paper=(x[0], y[-1]), **labels, **more)


def a_strip(n_layers, n, **more):
    image = np.zeros(n, dtype=bool)
    image[n // 10 : n - n // 10] = True
    return attention_strip(np.abs(holes(n_layers, n)), image, **more)


def some_shares(n_layers, *kinds):
    stack = RNG.dirichlet(np.ones(len(kinds)), n_layers).T
    tokens = RNG.dirichlet(np.ones(len(kinds)))
    return stacked_shares(
        dict(zip(kinds, stack, strict=True)), dict(zip(kinds, map(float, tokens), strict=True))
    )


def some_dots(names, groups, **more):
    rows = [
        ScoreRow(name, float(v), v - 0.02, v + 0.02, group, paper=v + 0.01)
        for group in groups
        for name, v in zip(names, RNG.random(len(names)), strict=True)
    ]
    return dots(rows, x_label="accuracy", **more)


def some_heads(n_layers, n_heads):
    ars, auc = holes(n_layers * n_heads), holes(n_layers * n_heads)
    layer = np.repeat(np.arange(n_layers), n_heads)
    labels = {"x_label": "ARS", "y_label": "AUC", "title": TITLE}
    return scatter(ars, auc, layer, reference=("chance", 0.0), **labels)


def a_profile(n_layers, n_heads):
    per_pair = torch.rand(5, n_layers, n_heads)
    return ARSProfile.from_scores(per_pair.mean(0), per_pair)


def overlays(width, height, n_most, n_least):
    grid = single_tile(4, 4)
    most, least = (
        {n: RNG.random(16) for n in range(start, start + count)}
        for start, count in ((0, n_most), (10, n_least))
    )
    scores = dict.fromkeys(range(20), 0.5)
    image = Image.new("RGB", (width, height))
    return head_overlays(image, most, least, grid, layer=3, scores=scores, title=TITLE)


CASES = {
    "lines": lambda: some_lines(3, 6, title="t"),
    "lines: one point": lambda: some_lines(1, 1),
    "lines: long names": lambda: some_lines(5, 5, LONG, title=TITLE, reference=("vanilla", 0.01)),
    "lines: log": lambda: some_lines(2, 32, log="x", width=PAGE, reference=("vanilla", 0.01)),
    "lines: nothing": lambda: lines({"a": Series(np.full(3, NAN))}, x_label="x", y_label="y"),
    "lines: names": lambda: some_names(["K = 1", "K = 3", "K = 5"]),
    "lines: one name": lambda: some_names(["RVE"]),
    "lines: wrapped names": lambda: some_names(["all heads", "all heads, denoising", "sensitive"]),
    "lines: slanted names": lambda: some_names([LONG[: 20 + n] for n in range(6)]),
    "surface": lambda: a_surface(5, 5),
    "surface: one": lambda: a_surface(1, 1, title=TITLE),
    "surface: wide": lambda: a_surface(8, 7, centre=0.0, title=TITLE),
    "bands: 1": lambda: bands(holes(1, 1), preset=(0, 0)),
    "bands: 3": lambda: bands(holes(3, 3), preset=(1, 2), title=TITLE),
    "bands: 6": lambda: bands(holes(6, 6), preset=(3, 5)),
    "bands: 32": lambda: bands(holes(32, 32), preset=(14, 31), title=TITLE),
    "bands: nothing": lambda: bands(np.full((6, 6), NAN)),
    "strip: 6": lambda: a_strip(6, 70, title="Does a man ride a log?"),
    "strip: 32": lambda: a_strip(32, 2935, title=TITLE),
    "strip: one": lambda: a_strip(1, 1),
    "strip: nothing": lambda: attention_strip(np.full((6, 9), NAN), np.ones(9, dtype=bool)),
    "shares: 6": lambda: some_shares(6, "image", "text"),
    "shares: 32": lambda: some_shares(32, "image", "text"),
    "shares: kinds": lambda: some_shares(32, "image", "system prompt", "question", LONG),
    "shares: one": lambda: some_shares(1, "image"),
    "dots": lambda: some_dots(["vanilla", "VCD", "RVE"], ["POPE", "AMBER"], baseline="vanilla"),
    "dots: long": lambda: some_dots([LONG, "b", LONG + "!"], [LONG[:40], "B"], title=TITLE),
    "dots: one": lambda: dots([ScoreRow("RVE", 0.5)], x_label="accuracy"),
    "dots: nothing": lambda: dots([ScoreRow("RVE", NAN)], x_label="accuracy"),
    "timing": lambda: timing_bars(["vanilla", LONG, "c"], np.ones(3), np.array([1.0, 2.0, NAN])),
    "timing: one": lambda: timing_bars(["vanilla"], np.ones(1), np.zeros(1), title=TITLE),
    "timing: nothing": lambda: timing_bars(["vanilla"], np.full(1, NAN), np.full(1, NAN)),
    "scatter: 6": lambda: some_heads(6, 12),
    "scatter: 32": lambda: some_heads(32, 8),
    "scatter: one": lambda: some_heads(1, 1),
    "profile: 6": lambda: layer_profile(a_profile(6, 4), layers=[3, 4], title=TITLE),
    "profile: 32": lambda: layer_profile(a_profile(32, 4), layers=range(14, 32)),
    "profile: one": lambda: layer_profile(a_profile(1, 1)),
    "heat map: 32": lambda: ars_heatmap(a_profile(32, 32), title=TITLE),
    "heat map: one": lambda: ars_heatmap(a_profile(1, 1)),
    "overlays": lambda: overlays(40, 40, 3, 3),
    "overlays: wide": lambda: overlays(90, 30, 6, 4),
    "overlays: high": lambda: overlays(30, 90, 2, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_words_stay_apart_and_on_the_paper(case):
    RNG.bit_generator.state = START
    figure = CASES[case]()
    check_words(figure)
    assert figure.get_figheight() < 9
    assert smallest_text(figure) >= 6
