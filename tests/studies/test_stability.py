"""Overlaps of the most sensitive heads against sets, and sizes from which on they settle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.studies.ars_map.stability import _settled, _sizes, overlap, stability, top_heads


@given(seed=st.integers(0, 99), k=st.integers(1, 5))
def test_overlap_against_sets(seed, k):
    scores = np.random.default_rng(seed).integers(0, 4, (2, 3, 6)).astype(float)
    tops = []
    for one in scores:
        ordered = [sorted(range(6), key=lambda h, row=row: (-row[h], h))[:k] for row in one]
        assert [np.flatnonzero(row).tolist() for row in top_heads(one, k)] == list(
            map(sorted, ordered)
        )
        tops.append(ordered)
    shares = [len(set(a) & set(b)) / k for a, b in zip(*tops, strict=True)]
    found = overlap(top_heads(scores[0], k), top_heads(scores[1], k), k)
    assert found == pytest.approx(sum(shares) / 3)


def test_sizes():
    assert _sizes(1) == []
    assert _sizes(2) == [1]
    assert _sizes(8) == [1, 2, 4]
    assert _sizes(40) == [1, 2, 4, 8, 16, 20, 32]


def test_heads_that_never_change_are_settled_from_one_pair_on():
    per_pair = np.broadcast_to(np.arange(12.0).reshape(1, 2, 6), (9, 2, 6))
    found = stability(per_pair, 2, 50, 0)
    assert found["settled_whole"] == found["settled_halves"] == 1
    assert found["whole"] == [{"value": 1.0, "low": 1.0, "high": 1.0}] * 4
    assert found["halves"][-1] is None  # eight of nine pairs leave none for a second sample
    assert found["n"] == [1, 2, 4, 8]


def test_noise_overlaps_by_chance_between_disjoint_samples_alone():
    """Large samples of noise overlap with all of it: that is why disjoint ones are what counts."""
    noise = np.random.default_rng(0).normal(size=(64, 40, 8))
    found = stability(noise, 2, 50, 1)
    for one in found["halves"][:-1]:
        assert one["value"] == pytest.approx(2 / 8, abs=0.04)
    assert found["settled_halves"] is None
    assert found["whole"][-1]["value"] > 0.5
    assert found == stability(noise, 2, 50, 1)
    assert found != stability(noise, 2, 50, 2)


def test_settled_means_at_every_larger_size():
    def overlaps(*values):
        return [None if v is None else {"value": v, "low": v, "high": v} for v in values]

    assert _settled([1, 2, 4, 8], overlaps(0.9, 0.8, 0.9, 0.95)) == 4
    assert _settled([1, 2, 4, 8], overlaps(0.5, 0.95, 0.9, None)) == 2
    assert _settled([1, 2], overlaps(0.95, 0.89)) is None
    assert _settled([], []) is None
