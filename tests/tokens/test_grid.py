"""Patch grids by themselves: every value lands on the pixels of its patch, and nowhere else."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.tokens.grid import (
    ImageGrid,
    Tile,
    center_crop_box,
    pad_to_square_box,
    seen_box,
    single_tile,
    square_side,
    tiled,
)

small = st.integers(1, 6)
pixels = st.integers(1, 60)


@given(rows=small, columns=small, scale_x=small, scale_y=small)
def test_a_whole_image_is_an_enlarged_array(rows, columns, scale_x, scale_y):
    values = np.random.default_rng(0).normal(size=(rows, columns))
    drawn = single_tile(rows, columns).picture(values.ravel(), columns * scale_x, rows * scale_y)
    assert np.array_equal(drawn, values.repeat(scale_y, 0).repeat(scale_x, 1))


@given(width=pixels, height=pixels, side=small)
def test_a_crop_leaves_the_margin_out(width, height, side):
    drawn = single_tile(side, side, center_crop_box(width, height)).picture(
        np.ones(side * side), width, height
    )
    seen = ~np.isnan(drawn)
    edge = min(width, height)
    assert abs(int(seen.any(0).sum()) - edge) <= 1
    assert abs(int(seen.any(1).sum()) - edge) <= 1
    assert seen.sum() == seen.any(0).sum() * seen.any(1).sum()


@given(width=pixels, height=pixels, side=small)
def test_padding_hides_nothing(width, height, side):
    box = pad_to_square_box(width, height)
    drawn = single_tile(side, side, box).picture(np.arange(side * side, dtype=float), width, height)
    assert np.isfinite(drawn).all()
    assert np.array_equal(np.nanmax(drawn), drawn.max())


@given(rows=small, columns=small, side=small, first=st.booleans(), seed=st.integers(0, 99))
def test_tiles_lie_row_by_row_over_an_overview(rows, columns, side, first, seed):
    area = side * side
    n_tokens = (rows * columns + 1) * area
    grid = tiled(n_tokens, rows, columns, side, overview="first" if first else "last")
    assert grid is not None
    tokens = np.random.default_rng(seed).normal(size=n_tokens)
    overview, fine = (tokens[:area], tokens[area:]) if first else (tokens[-area:], tokens[:-area])
    fine = fine.reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    fine = fine.reshape(rows * side, columns * side)
    coarse = overview.reshape(side, side).repeat(rows, 0).repeat(columns, 1)
    drawn = grid.picture(tokens, columns * side, rows * side)
    assert np.array_equal(drawn, np.maximum(fine, coarse))
    assert tiled(n_tokens + 1, rows, columns, side, overview="first") is None


def test_newline_tokens_are_skipped():
    tokens = np.array([1.0, 2.0, 99.0, 3.0, 4.0, 99.0])
    grid = ImageGrid(6, (Tile(0, 2, 2, 3),))
    assert grid.picture(tokens, 2, 2).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_wrong_length():
    with pytest.raises(ValueError, match=r"vector of shape \(3,\) for an image of 4 tokens"):
        single_tile(2, 2).picture(np.zeros(3), 8, 8)


def _images(**settings):
    return SimpleNamespace(**settings)


CLIP = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}


def test_what_the_image_processor_shows():
    whole = (0.0, 0.0, 1.0, 1.0)
    assert seen_box(None, 200, 100) == center_crop_box(200, 100) == (0.25, 0.0, 0.75, 1.0)
    assert seen_box(_images(**CLIP, do_center_crop=True), 200, 100) == (0.25, 0.0, 0.75, 1.0)
    assert seen_box(_images(**CLIP, do_center_crop=False), 200, 100) == whole
    assert seen_box(_images(**CLIP, do_center_crop=True, do_pad=True), 200, 100) == (
        pad_to_square_box(200, 100)
    )
    squashed = CLIP | {"size": {"height": 336, "width": 336}}
    assert seen_box(_images(**squashed, do_center_crop=True), 200, 100) == whole
    smaller = CLIP | {"crop_size": {"height": 168, "width": 168}}
    assert seen_box(_images(**smaller, do_center_crop=True), 100, 100) == (0.25, 0.25, 0.75, 0.75)


@given(n=st.integers(-3, 400))
def test_square_side(n):
    side = square_side(n)
    assert (side is not None) == (n in {s * s for s in range(1, 21)})
    assert side is None or side * side == n


edges = st.floats(0, 40)


@given(x=edges, y=edges, wide=edges, high=edges, rows=small, columns=small)
def test_tokens_in_boxes_against_a_loop(x, y, wide, high, rows, columns):
    """Two tiles with a newline token a row, the right one finer; a crop leaves the top out."""
    grid = ImageGrid(
        rows * (columns + 1) + 4 * rows * columns,
        (
            Tile(0, rows, columns, columns + 1, (0.0, 0.25, 0.5, 1.0)),
            Tile(rows * (columns + 1), 2 * rows, 2 * columns, 2 * columns, (0.5, 0.25, 1.0, 1.0)),
        ),
    )
    box = (x, y, x + wide, y + high)
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    expected, nearest = set(), {}
    for tile, left in zip(grid.tiles, (0, 30), strict=True):
        for row in range(tile.rows):
            for column in range(tile.columns):
                token = tile.start + row * tile.stride + column
                middle_x = left + (column + 0.5) * 30 / tile.columns
                middle_y = 10 + (row + 0.5) * 30 / tile.rows
                if box[0] <= middle_x <= box[2] and box[1] <= middle_y <= box[3]:
                    expected.add(token)
                away = math.dist((middle_x, middle_y), centre)
                nearest[token] = away
    found = set(np.flatnonzero(grid.tokens_in([box], (60, 40))).tolist())
    if expected:
        assert found == expected
    elif not (centre[0] <= 60 and 10 <= centre[1] <= 40):
        assert found == set()
    else:
        (token,) = found
        assert nearest[token] == pytest.approx(min(nearest.values()))
    unplaced = np.flatnonzero(np.isnan(grid.middles((60, 40))[:, 0])).tolist()
    assert unplaced == [row * (columns + 1) + columns for row in range(rows)]


def test_no_boxes_and_a_box_that_was_cropped_away():
    grid = single_tile(2, 2, center_crop_box(200, 100))
    assert not grid.tokens_in([], (200, 100)).any()
    assert not grid.tokens_in([(0.0, 0.0, 40.0, 100.0)], (200, 100)).any()
    assert grid.tokens_in([(0.0, 0.0, 200.0, 100.0)], (200, 100)).all()
    assert grid.tokens_in([(110.0, 60.0, 112.0, 62.0)], (200, 100)).tolist() == [
        False,
        False,
        False,
        True,
    ]
