"""Metrics against definitions in loops; intervals on cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.metrics import (
    accuracy,
    auc,
    bootstrap,
    bootstrap_each,
    estimate,
    estimate_gain,
    f1,
    resamples,
    yes_ratio,
)

answers = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=12)


@given(answers)
def test_metrics_against_counting(pairs):
    truth = np.array([t for t, _ in pairs])
    margin = np.array([float(m) for _, m in pairs])
    yes = [m > 0 for _, m in pairs]
    n = len(pairs)
    tp = sum(y and t for y, (t, _) in zip(yes, pairs, strict=True))
    fp = sum(y and not t for y, (t, _) in zip(yes, pairs, strict=True))
    fn = sum(not y and t for y, (t, _) in zip(yes, pairs, strict=True))
    assert accuracy(truth, margin) == pytest.approx((n - fp - fn) / n)
    assert yes_ratio(truth, margin) == pytest.approx((tp + fp) / n)
    if tp + fp + fn:
        assert f1(truth, margin) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    else:
        assert math.isnan(f1(truth, margin))
    wins = [
        (a > b) + 0.5 * (a == b)
        for t, a in zip(truth, margin, strict=True)
        if t
        for u, b in zip(truth, margin, strict=True)
        if not u
    ]
    if wins:
        assert auc(truth, margin) == pytest.approx(sum(wins) / len(wins))
    else:
        assert math.isnan(auc(truth, margin))


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        truth = np.ones(100, dtype=bool)
        margin = np.where(rng.random(100) < 0.7, 1.0, -1.0)
        e = estimate(accuracy, truth, margin, np.arange(100), n_resamples=200, seed=trial)
        covered += e.low <= 0.7 <= e.high
    assert 0.88 <= covered / 200 <= 0.99


def test_questions_of_one_scene_are_drawn_together():
    cluster = np.array([5, 5, 5, 9])
    for draw in resamples(cluster, 50, seed=1):
        counts = np.bincount(draw, minlength=4)
        assert counts[0] == counts[1] == counts[2]
        assert counts[0] + counts[3] == 2


def test_a_method_that_changes_nothing_gains_nothing():
    truth = np.array([True, False] * 20)
    margin = np.linspace(-1, 1, 40)
    gain = estimate_gain(accuracy, truth, margin, margin.copy(), np.arange(40))
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)
    assert str(gain) == "0.000 [0.000, 0.000]"


def test_several_statistics_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    values, cluster = rng.normal(size=(20, 3)), np.arange(20) // 3
    together = bootstrap_each(lambda i: values[i].mean(axis=0), cluster, 200, 7)
    for n, one in enumerate(together):
        alone = bootstrap(lambda i, n=n: float(values[i, n].mean()), cluster, 200, 7)
        assert (one.value, one.low, one.high) == pytest.approx((alone.value, alone.low, alone.high))
