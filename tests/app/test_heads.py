"""Heads: attention for both texts, lists of heads, answers without them."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rvelens.app.heads import (
    ask_without,
    brushed,
    format_heads,
    parse_heads,
    see,
    sorted_heads,
    toggled,
)
from rvelens.app.markup import head_list
from rvelens.app.models import Models
from rvelens.app.shared import scene_pairs
from rvelens.heads.pair import ContrastivePair
from rvelens.hooks import ars_caching_hooks, head_mask_hooks
from rvelens.scores import score_heads

HEADS = st.dictionaries(
    st.integers(0, 5), st.lists(st.integers(0, 11), min_size=1, unique=True), max_size=4
)


@pytest.fixture(scope="module")
def loaded():
    return Models().get("rvelens/tiny")


def test_seen_scores_are_equation_3(loaded):
    pair = scene_pairs()[1]
    seen = see(loaded, pair)
    assert seen.attention.shape == (2, 6, 12, 64)
    assert torch.allclose(seen.scores, score_heads(loaded.model, [pair]).scores, atol=1e-4)


def test_seen_attention_is_what_the_hooks_see_of_each_text_alone(loaded):
    pair, model = scene_pairs()[2], loaded.model
    seen = see(loaded, pair)
    for n, text in enumerate((pair.question, pair.contrastive)):
        cache = {}
        with torch.no_grad(), model.hooks(ars_caching_hooks(range(model.n_layers), cache)):
            model(**model.prepare(pair.image, text))
        alone = torch.stack([cache[layer][0] for layer in range(model.n_layers)])
        assert torch.allclose(seen.attention[n], alone, atol=1e-5)


def test_texts_that_do_not_differ_are_refused():
    pair = scene_pairs()[0]
    with pytest.raises(ValueError, match="expected texts that differ"):
        ContrastivePair(pair.image, pair.question, pair.question)


@given(HEADS)
def test_lists_of_heads_are_read_back(heads):
    expected = {layer: sorted(some) for layer, some in sorted(heads.items())}
    assert parse_heads(format_heads(heads), 6, 12) == expected


@pytest.mark.parametrize("text", ["3.5,4.1", " 4.1 ; 3.5\n", "3.5 4.1 3.5", "3 . 5, 4 .1"])
def test_spellings_of_a_list(text):
    assert parse_heads(text, 6, 12) == {3: [5], 4: [1]}


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text):
    heads: dict[int, list[int]] = {}
    with suppress(ValueError):  # any other error fails
        heads = parse_heads(text, 6, 12)
    assert all(layer < 6 and head < 12 for layer, some in heads.items() for head in some)


def test_wrong_heads_are_named():
    with pytest.raises(ValueError, match=r"heads '3.5, x': expected layer.head such as"):
        parse_heads("3.5, x", 6, 12)
    with pytest.raises(ValueError, match=r"head 6.0 of a model of 6 layers x 12 heads"):
        parse_heads("6.0", 6, 12)


def test_a_click_adds_and_removes():
    assert toggled("", "3.5", 6, 12) == "3.5"
    assert toggled("4.1", "3.5", 6, 12) == "3.5, 4.1"
    assert toggled("3.5, 4.1", "3.5", 6, 12) == "4.1"
    assert toggled("3.5", "3.5", 6, 12) == ""


def test_a_drag_over_the_map_adds_a_rectangle_or_removes_it():
    assert brushed("0.0", "2.3", "1.1", 6, 12) == "0.0, 1.1, 1.2, 1.3, 2.1, 2.2, 2.3"
    assert brushed("0.0, 1.1, 1.2", "1.1", "1.2", 6, 12) == "0.0"
    assert brushed("1.1", "1.1", "1.2", 6, 12) == "1.1, 1.2"
    with pytest.raises(ValueError, match=r"head 6.0 of a model of 6 layers"):
        brushed("", "6.0", "1.1", 6, 12)


def test_heads_are_sorted_by_score_layer_and_name():
    scores = np.array([[0.1, 0.9], [0.5, 0.2]])
    assert sorted_heads(scores, "score") == [(0, 1), (1, 0), (1, 1), (0, 0)]
    assert sorted_heads(scores, "layer") == [(0, 1), (0, 0), (1, 0), (1, 1)]
    assert sorted_heads(scores, "name") == [(0, 0), (0, 1), (1, 0), (1, 1)]
    html = head_list(scores, sorted_heads(scores, "score"))
    assert re.findall(r'data-head="([\d.]+)"', html) == ["0.1", "1.0", "1.1", "0.0"]
    assert 'width:100.0%"' in html


def test_answers_without_heads(loaded):
    pair, heads = scene_pairs()[1], {2: range(12), 3: range(12), 4: range(12)}
    rows = ask_without(loaded, pair.image, (pair.question, pair.contrastive), heads)
    assert len(rows) == 2
    before, after = rows[0]
    assert before.text == loaded.model.ask(pair.image, pair.question)[0]
    with loaded.model.hooks(head_mask_hooks(heads)):
        assert after.text == loaded.model.ask(pair.image, pair.question)[0]
    assert abs(before.yes - after.yes) > 0.01
    with pytest.raises(ValueError, match="no heads are given: expected the heads"):
        ask_without(loaded, pair.image, (pair.question,), {})
