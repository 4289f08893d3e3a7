"""Figures of many small pictures, and overlays on axes of one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_checks import check_words
from matplotlib.figure import Figure
from PIL import Image

from rvelens.model.trace import Trace, TracedAnswer
from rvelens.plots import head_grid, overlay, token_overlays
from rvelens.tokens.grid import single_tile

IMAGE = Image.new("RGB", (60, 60), (120, 120, 120))
GRID = single_tile(2, 2)


def trace(*lengths, words=("a", "longer", "")):
    """An answer of each length, whose token 0 looks at image token 0 and so on, half as much."""
    answers = []
    for number, n in enumerate(lengths):
        ids = torch.arange(n)
        attention = torch.zeros(n, 2, 3, 4)
        attention[ids, :, :, ids % 4] = 0.5
        pieces = tuple(words[k % len(words)] for k in range(n))
        answers.append(TracedAnswer(f"name {number}", "", ids, pieces, -ids.float(), attention))
    return Trace("m", IMAGE, "q", "chat", GRID, tuple(answers))


def hot(picture, size=60):
    """Which quarter of a picture is hot: viridis ends in yellow, of which little is blue."""
    half = size // 2
    quarters = [picture[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return int(np.argmin([q[..., 2].astype(float).mean() for q in quarters]))


def test_an_overlay_on_own_axes_is_drawn_there_alone():
    figure = Figure(figsize=(4, 2))
    left, right = figure.subplots(1, 2)
    values = np.array([0.0, 0.1, 0.2, 0.3])
    assert overlay(IMAGE, values, GRID, title="mine", label="", top=1.2, ax=left) is figure
    assert left.get_title() == "mine"
    assert len(figure.axes) == 2
    assert not right.images
    overlay(IMAGE, values, GRID, top=1.2, ax=right)
    bar = next(a for a in right.child_axes)
    assert bar.get_ylim() == (0, 1.2)
    with pytest.raises(ValueError, match=r"top=0\.0: expected where the scale ends, above 0"):
        overlay(IMAGE, values, GRID, top=0.0, ax=left)


def test_an_overlay_in_a_part_of_a_figure():
    figure = Figure(figsize=(4, 2))
    part = np.atleast_1d(np.asarray(figure.subfigures(1, 2)))[0]
    assert overlay(IMAGE, np.zeros(4), GRID, ax=part.subplots()) is figure


def test_each_head_stands_at_its_layer_and_number():
    values = np.zeros((2, 3, 4))
    looks = {(layer, head): (2 * layer + head) % 4 for layer in range(2) for head in range(3)}
    for (layer, head), token in looks.items():
        values[layer, head, token] = 0.1 + layer
    figure = head_grid(IMAGE, values, GRID, layers=[7, 9], title="t", label="attention")
    axes = figure.axes[0]
    picture = np.asarray(axes.images[0].get_array())
    for (layer, head), token in looks.items():
        cell = picture[layer * 67 : layer * 67 + 64, head * 67 : head * 67 + 64]
        assert hot(cell, 64) == token
    assert [t.get_text() for t in axes.get_yticklabels()] == ["7", "9"]
    assert figure.get_suptitle() == "t"
    check_words(figure)
    same = head_grid(IMAGE, values, GRID, top=1.1).axes[0]
    faint = np.asarray(same.images[0].get_array())[:64, :64]
    assert np.abs(faint.astype(float) - picture[:64, :64]).max() > 40  # 0.1 of 1.1, no more full


def test_a_grid_on_own_axes():
    figure = Figure(figsize=(4, 2), layout="constrained")
    axes = figure.subplots()
    assert head_grid(IMAGE, np.ones((1, 2, 4)), GRID, title="own", label="", ax=axes) is figure
    assert axes.get_title() == "own"
    assert len(figure.axes) == 1


@pytest.mark.parametrize(("shape", "layers"), [((0, 2, 4), None), ((2, 2, 4), [1])])
def test_a_grid_without_heads_or_of_other_layers(shape, layers):
    with pytest.raises(ValueError, match=r"expected \[layer head image\] with at least one head"):
        head_grid(IMAGE, np.zeros(shape), GRID, layers=layers)


def test_every_token_of_every_answer_stands_over_where_it_looked():
    figure = token_overlays(trace(3, 9), title="A question?")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 3 + 9
    for axes, token in zip(shown, [0, 1, 2, *range(9)], strict=True):
        picture = np.asarray(axes.images[0].get_array())
        assert hot(picture, picture.shape[0]) == token % 4
    titles = [axes.get_title() for axes in shown]
    assert titles[0] == "name 0:\na\n100.0%"
    assert titles[1] == "\nlonger\n36.8%"
    assert titles[2] == "\n\u2423\n13.5%"
    assert titles[11].startswith("...\n")
    assert figure.get_suptitle() == "A question?"


@pytest.mark.parametrize(
    "lengths", [(1,), (2, 2), (9, 3)], ids=lambda lengths: "-".join(map(str, lengths))
)
def test_words_of_tokens_stay_apart(lengths):
    words = ("Feuerwehrmannschaftsausruestung", "a", "</s>")
    check_words(token_overlays(trace(*lengths, words=words), title="What is " * 12))


def test_a_long_answer_is_cut_and_says_so():
    figure = token_overlays(trace(50))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 48
    assert "first 48 of 50" in " ".join(shown[0].get_title().split())


def test_tokens_without_a_place_cannot_be_drawn():
    with pytest.raises(
        ValueError, match="the image tokens of m have no position in the image: expected"
    ):
        token_overlays(replace(trace(1), grid=None))
    with pytest.raises(ValueError, match="layer 5: expected numbers from 0 to 1"):
        token_overlays(trace(1), layers=[5])
