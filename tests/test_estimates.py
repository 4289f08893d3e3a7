"""Means over questions drawn, photographs, and what an interval says of a level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.stats import Estimate, above, clusters, format_change, means

numbers = st.lists(
    st.lists(st.one_of(st.floats(-5, 5), st.just(np.nan)), min_size=2, max_size=2),
    min_size=1, max_size=6,
)  # fmt: skip


@given(rows=numbers, draw=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_means_against_a_loop(rows, draw):
    drawn = np.array([n % len(rows) for n in draw])
    found = means(np.array(rows))(drawn)
    for n in range(2):
        known = [rows[i][n] for i in drawn if not np.isnan(rows[i][n])]
        expected = sum(known) / len(known) if known else np.nan
        assert found[n] == pytest.approx(expected, nan_ok=True)


def test_photographs_are_numbered_as_they_come():
    assert clusters(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_what_is_no_number_is_none():
    assert Estimate(float("nan"), 0.0, 1.0).to_json_or_none() is None
    assert Estimate(0.5, 0.25, 0.75).to_json_or_none() == {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.mark.parametrize(
    ("low", "high", "level", "says"),
    [(0.1, 0.2, 0.0, True), (-0.2, -0.1, 0.0, False), (-0.1, 0.1, 0.0, None), (0.0, 0.2, 0.0, None),
     (0.1, 0.2, 0.5, False), (0.6, 0.7, 0.5, True)],
)  # fmt: skip
def test_a_level_inside_the_interval_is_not_excluded(low, high, level, says):
    estimate = {"value": (low + high) / 2, "low": low, "high": high}
    assert above(estimate, level) is says
    assert format_change(estimate).endswith(f"[{low:+.3f}, {high:+.3f}]")
