"""Figures of many settings at once against one question at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvelens import stats
from rvelens.studies.kit.margins import MARGIN_METRICS, draw_figures, to_estimate


def literal(truth, margin):
    """By the definitions, on a list of questions in which some stand several times."""
    by_side = [[m > 0 for t, m in zip(truth, margin, strict=True) if t == side] for side in (1, 0)]
    shares = [sum(said) / len(said) if said else np.nan for said in by_side]
    wins = [
        (a > b) + (a == b) / 2
        for a, t in zip(margin, truth, strict=True)
        if t
        for b, s in zip(margin, truth, strict=True)
        if not s
    ]
    return {
        "accuracy": np.mean([(m > 0) == t for t, m in zip(truth, margin, strict=True)]),
        "balanced_accuracy": (shares[0] + 1 - shares[1]) / 2,
        "auc": np.mean(wins) if wins else np.nan,
        "yes_ratio": np.mean([m > 0 for m in margin]),
    }


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 99),
)
def test_every_draw_against_counting(rows, seed):
    truth = np.array([row[0] for row in rows])
    margin = np.array([[row[1] for row in rows], [row[2] for row in rows]], dtype=float)
    cluster = np.array([row[3] for row in rows])
    found = draw_figures(truth, margin, cluster, n_resamples=4, seed=seed)
    draws = [np.arange(len(rows)), *stats.resamples(cluster, 4, seed)]
    for n, draw in enumerate(draws):
        for setting in (0, 1):
            expected = literal(truth[draw].tolist(), margin[setting, draw].tolist())
            for metric in MARGIN_METRICS:
                assert found[metric].shape == (5, 2)
                assert found[metric][n, setting] == pytest.approx(
                    expected[metric], abs=1e-9, nan_ok=True
                )


def test_intervals_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    truth, margin, cluster = rng.random(60) < 0.5, rng.normal(size=60), np.arange(60) // 2
    found = draw_figures(truth, margin[None], cluster)
    for name in ("accuracy", "auc", "yes_ratio"):
        whole = stats.estimate(getattr(stats, name), truth, margin, cluster)
        assert to_estimate(found[name][:, 0]) == pytest.approx(whole.to_json(), abs=1e-6)


def test_what_is_undefined_has_no_estimate():
    found = draw_figures(np.array([True, True]), np.array([[1.0, -1.0]]), np.array([0, 1]))
    assert to_estimate(found["auc"][:, 0]) is None
    assert to_estimate(found["balanced_accuracy"][:, 0]) is None
    assert to_estimate(found["accuracy"][:, 0])["value"] == 0.5
    assert str(to_estimate(np.array([-1e-17, -1e-17]))["low"]) == "0.0"
