"""How well a head finds a region, against counting; rank correlations against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from rvelens.heads.region import enrichment, rank_correlations, region_auc


def test_localisation_against_counting():
    torch.manual_seed(0)
    attention = torch.randint(0, 4, (3, 2, 2, 9)).float() + 0.0
    region = torch.rand(3, 9) > 0.6
    region[:, 0], region[:, 1] = True, False
    found, enriched = region_auc(attention, region), enrichment(attention, region)
    for q in range(3):
        for layer in range(2):
            for head in range(2):
                a = attention[q, layer, head].tolist()
                inside = [x for x, r in zip(a, region[q].tolist(), strict=True) if r]
                outside = [x for x, r in zip(a, region[q].tolist(), strict=True) if not r]
                wins = sum((i > o) + 0.5 * (i == o) for i in inside for o in outside)
                expected = wins / (len(inside) * len(outside))
                assert float(found[q, layer, head]) == pytest.approx(expected, abs=1e-5)
                share = sum(inside) / sum(a) / (len(inside) / 9)
                assert float(enriched[q, layer, head]) == pytest.approx(share, abs=1e-5)


def test_rank_correlations_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (4, 9)).astype(float), rng.normal(size=(4, 9))
    found = rank_correlations(a, b)
    for layer in range(4):
        assert found[layer] == pytest.approx(spearmanr(a[layer], b[layer])[0])
    assert rank_correlations(np.ones((1, 3)), b[:1, :3]) == [0]
    assert rank_correlations(b, b**3) == pytest.approx([1] * 4)
