"""The strip and the shares: weights at their positions, the image bracketed, shares stacked."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import label

from rvelens.plots import attention_strip, stacked_shares

RNG = np.random.default_rng(0)
IMAGE = np.zeros(20, dtype=bool)
IMAGE[3:15] = True


def test_the_strip_shows_logs_of_the_weights():
    weights = RNG.dirichlet(np.ones(20), 6)
    weights[2, 4], weights[3, 5] = 0.0, np.nan
    axes = attention_strip(weights, IMAGE).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    expected = [[np.log10(w) if w > 0 else np.nan for w in row] for row in weights]
    np.testing.assert_allclose(shown, expected)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # layers downwards


def test_each_run_of_image_tokens_is_bracketed():
    figure = attention_strip(RNG.dirichlet(np.ones(20), 6), IMAGE)
    (bracket,) = figure.axes[0].lines
    assert list(bracket.get_xdata()) == [2.5, 14.5]
    assert label(figure, "image (12 of 20 tokens)")
    broken = IMAGE.copy()
    broken[[7, 19]] = False, True
    spans = [list(x.get_xdata()) for x in attention_strip(np.ones((6, 20)), broken).axes[0].lines]
    assert spans == [[2.5, 6.5], [7.5, 14.5], [18.5, 19.5]]


def test_a_single_token_in_a_long_input_stays_visible():
    weights = np.full((2, 5000), 1e-5)
    weights[1, 1234] = 0.9
    axes = attention_strip(weights, np.zeros(5000, dtype=bool)).axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (2, 700)
    assert shown.max() == pytest.approx(np.log10(0.9))
    column = int(shown[1].argmax())
    assert column * 5000 // 700 <= 1234 < (column + 1) * 5000 // 700
    assert axes.get_xlim() == (-0.5, 4999.5)


def test_the_strip_wants_a_truth_value_a_position(unchecked):
    with pytest.raises(ValueError, match=r"19 image positions for weights of shape \(6, 20\)"):
        attention_strip(np.ones((6, 20)), IMAGE[:19])


def test_shares_are_stacked_with_the_image_at_the_bottom():
    image = np.array([0.5, 0.2, 0.1])
    figure = stacked_shares(
        {"image": image, "text": 1 - image},
        {"image": 0.878, "text": 0.122},
        low=image - 0.02,
        high=image + 0.03,
    )
    axes = figure.axes[0]
    lower, upper = axes.containers
    np.testing.assert_allclose([bar.get_height() for bar in lower], 100 * image)
    np.testing.assert_allclose([bar.get_y() for bar in upper], 100 * image)
    np.testing.assert_allclose([b.get_y() + b.get_height() for b in upper], 100)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 87.8)
    ends = [segment[:, 1] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(ends, 100 * np.column_stack([image - 0.02, image + 0.03]))
    assert label(figure, "image: 87.8% of tokens")
    assert label(figure, "image").get_color() != label(figure, "text").get_color()


def test_three_kinds_have_two_levels():
    third = np.full(4, 1 / 3)
    shares = {"image": third, "system prompt": third, "question": third}
    figure = stacked_shares(shares, {"image": 0.8, "system prompt": 0.15, "question": 0.05})
    assert label(figure, "image: 80.0% of tokens")
    assert label(figure, "image + system prompt: 95.0% of tokens")


def test_shares_and_tokens_are_of_the_same_kinds():
    with pytest.raises(ValueError, match="shares of image and tokens of text: expected the same"):
        stacked_shares({"image": np.ones(2)}, {"text": 1.0})
    with pytest.raises(ValueError, match="shares of nothing and tokens of nothing"):
        stacked_shares({}, {})
