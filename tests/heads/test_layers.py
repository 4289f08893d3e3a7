from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rvelens import ARSProfile
from rvelens.heads.layers import contiguous_bands, format_layers, parse_layers

PROFILE = ARSProfile.from_scores(torch.tensor([[0.1, 0.2], [0.5, 0.6], [0.1, 0.1], [0.9, 0.2]]))


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("14-31", list(range(14, 32))),
        ("3,5,7-9", [3, 5, 7, 8, 9]),
        (" 9 , 3 - 4, 3 ", [3, 4, 9]),
        ("0", [0]),
        ("31", [31]),
        ("preset", list(range(14, 32))),
    ],
)
def test_specs(spec, layers):
    assert parse_layers(spec, None, 32) == layers


@pytest.mark.parametrize(("n", "first"), [(32, 14), (40, 18), (28, 12), (6, 3), (1, 0)])
def test_the_preset_scales_with_depth(n, first):
    assert parse_layers("preset", None, n) == list(range(first, n))


def test_auto_is_the_profiles_choice():
    assert parse_layers("auto", PROFILE, 4) == PROFILE.auto_layers() == [1, 3]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "correct ''"),
        ("middle", "correct 'middle'"),
        ("3,,5", "correct ''"),
        ("-1", "correct '-1'"),
        ("3-", "correct '3-'"),
        ("3.5", "correct '3.5'"),
        ("9-3", "'9-3' runs backwards"),
        ("14-32", "from 0 to 31; correct 32"),
        ("auto", "'auto' without a profile"),
    ],
)
def test_mistakes(spec, says):
    with pytest.raises(ValueError, match=says):
        parse_layers(spec, None, 32)


def test_auto_needs_scores_of_this_model():
    with pytest.raises(ValueError, match="a profile of 4 layers for a model of 32"):
        parse_layers("auto", PROFILE, 32)
    with pytest.raises(ValueError, match="ranking without scores"):
        parse_layers("auto", ARSProfile.published("llava-1.5-7b"), 32)


@given(st.sets(st.integers(0, 50), min_size=1))
def test_format_is_what_parse_reads(layers):
    assert parse_layers(format_layers(layers), None, 51) == sorted(layers)


def test_format_joins_runs():
    assert format_layers([9, 3, 7, 5, 8]) == "3,5,7-9"


@pytest.mark.parametrize("n", [1, 2, 6, 7, 32])
@pytest.mark.parametrize("step", [1, 2, 4, 40])
def test_contiguous_bands(n, step):
    found = contiguous_bands(n, step)
    expected = [
        list(range(a, b + 1))
        for a in range(n)
        for b in range(a, n)
        if a % step == 0 and ((b + 1) % step == 0 or b == n - 1)
    ]
    assert found == expected


def test_numbers_of_bands():
    assert len(contiguous_bands(32)) == 528
    assert len(contiguous_bands(32, 4)) == 36
    with pytest.raises(ValueError, match="band_step=0: expected at least 1"):
        contiguous_bands(32, 0)
