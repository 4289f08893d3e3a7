"""ARS by layer and head, and its spread over pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figure_checks import check_words, label

from rvelens import ARSProfile
from rvelens.plots import ars_heatmap, layer_profile

SCORES = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
PER_PAIR = torch.rand(20, 6, 8, generator=torch.Generator().manual_seed(1))
MEASURED = ARSProfile.from_scores(PER_PAIR.mean(0), PER_PAIR)


def test_heatmap_shows_every_score():
    figure = ars_heatmap(ARSProfile.from_scores(SCORES), title="m")
    left, right = figure.axes[:2]
    np.testing.assert_allclose(np.asarray(left.images[0].get_array()), SCORES.numpy())
    np.testing.assert_allclose(right.lines[0].get_xdata(), SCORES.mean(1).numpy(), rtol=1e-6)
    ordered = ars_heatmap(ARSProfile.from_scores(SCORES), sort=True).axes[0]
    expected = SCORES.sort(dim=1, descending=True).values.numpy()
    np.testing.assert_allclose(np.asarray(ordered.images[0].get_array()), expected)


def test_heatmap_needs_scores():
    with pytest.raises(ValueError, match="ranking without scores"):
        ars_heatmap(ARSProfile.published("llava-1.5-7b"))


def test_profile_shows_means_and_the_middle_of_the_pairs():
    figure = layer_profile(MEASURED, layers=[2, 3], title="m")
    axes = figure.axes[0]
    by_pair = PER_PAIR.mean(dim=2).numpy()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), by_pair.mean(0), rtol=1e-5)
    bars = np.array([bar[:, 1] for bar in axes.collections[0].get_segments()])
    sorted_pairs = np.sort(by_pair, axis=0)
    # The middle 80% of 20 pairs: two lie below and two above.
    assert ((sorted_pairs[1] <= bars[:, 0]) & (bars[:, 0] <= sorted_pairs[2])).all()
    assert ((sorted_pairs[17] <= bars[:, 1]) & (bars[:, 1] <= sorted_pairs[18])).all()
    assert label(figure, "shaded: layers 2-3")
    assert label(figure, "mean over heads, and middle 80% of 20 pairs")
    check_words(figure)


def test_profile_needs_single_pairs():
    with pytest.raises(ValueError, match="no scores of single pairs"):
        layer_profile(ARSProfile.from_scores(SCORES))
