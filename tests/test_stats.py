"""Metrics against definitions in loops; intervals on cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rvelens.stats import (
    Estimate,
    accuracy,
    auc,
    auc_of_draws,
    auc_of_sides,
    bootstrap,
    bootstrap_each,
    draw_counts,
    estimate,
    estimate_gain,
    f1,
    format_change,
    format_estimate,
    mcnemar,
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


@given(answers, st.integers(0, 99))
def test_auc_of_draws_is_the_auc_of_the_questions_repeated(pairs, seed):
    truth = np.array([t for t, _ in pairs])
    margin = np.array([-math.inf if m == -3 else float(m) for _, m in pairs])
    times = np.random.default_rng(seed).integers(0, 3, size=(len(pairs), 4))
    found = auc_of_draws(truth, margin, times)
    for draw, number in zip(times.T, found, strict=True):
        repeated = np.repeat(np.arange(len(pairs)), draw)
        assert number == pytest.approx(auc(truth[repeated], margin[repeated]), nan_ok=True)


def test_auc_of_rows_is_that_of_each_row():
    scores = torch.randint(0, 5, (2, 3, 9), generator=torch.Generator().manual_seed(0)).float()
    found = auc_of_sides(scores[..., :4], scores[..., 4:])
    truth = np.arange(9) < 4
    for row, number in zip(scores.reshape(6, 9), found.flatten(), strict=True):
        assert float(number) == pytest.approx(auc(truth, row.numpy()))
    scores[0, 0, 0] = math.nan
    assert auc_of_sides(scores[..., :4], scores[..., 4:]).isnan().sum() == 1
    assert auc_of_sides(scores[..., :0], scores).isnan().all()


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 9), (40, 41)])
def test_mcnemar_against_the_sum_of_the_binomial(gained, lost):
    n, few = gained + lost, min(gained, lost)
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_counts_of_draws_are_of_whole_draws():
    drawn = draw_counts(7, 50, seed=3)
    assert drawn.shape == (50, 7)
    assert set(drawn.sum(axis=1)) == {7}
    assert np.array_equal(drawn, draw_counts(7, 50, seed=3))


def test_an_estimate_is_printed_in_one_way():
    estimate = Estimate.from_draws(0.5, np.array([0.25, 0.75, np.nan]))
    assert str(estimate) == format_estimate(estimate.to_json()) == "0.500 [0.263, 0.738]"
    assert format_change(estimate) == "+0.500 [+0.263, +0.738]"
    undefined = Estimate.from_draws(0.5, np.array([np.nan]))
    assert math.isnan(undefined.low)
    assert math.isnan(undefined.high)
    assert str(Estimate(-1e-9, 0.0, 0.0).to_json()["value"]) == "0.0"
