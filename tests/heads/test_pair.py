"""What counts as a change in the verb alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.heads.pair import ContrastivePair, check_pair, swapped_word
from rvelens.pairs.file import read_pair_rows

REFERENCE = os.environ.get("RVELENS_REFERENCE")


def test_where_the_word_is():
    assert swapped_word("Does a man hold a bat ?", "Does a man kick a bat ?") == (11, 15, "kick")
    assert swapped_word("A T-shirt don't fit.", "A T-shirt can't fit.") == (10, 15, "can't")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("is it held by him ?", "is it held in her ?"),  # two words
        ("does he hold it ?", "does he sit on it ?"),  # two words for one
        ("does he look at it ?", "does he hold it ?"),  # one word for two
        ("does he hold it ?", "does he hold it"),  # a mark
        ("does he hold it ?", "does he kick it?"),  # a space
        ("does he  hold it ?", "does he kick it ?"),
        ("does he hold it ?", "does he kick, it ?"),
        ("does he hold it ?", ""),
        ("does he hold it ?", "does he hold it now ?"),
    ],
)
def test_more_than_a_word_is_refused(text, other):
    with pytest.raises(ValueError, match="expected texts that differ in one word"):
        swapped_word(text, other)


@pytest.mark.parametrize(
    "other",
    [
        "does he hold it ?",
        "does he HOLD it ?",
        "does he ｈold it ?",  # wide letters
        "does he ho\u200bld it ?",  # a space of no width
        "does he hold\u00ad it ?",  # a hyphen that is not shown
    ],
)
def test_no_other_word_is_refused(other):
    with pytest.raises(ValueError, match="without a changed word: expected another verb"):
        swapped_word("does he hold it ?", other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("does a man hold it ?", "does a woman hold it ?"),
        ("does a man hold the bat ?", "does a man hold the ball ?"),
        ("does a man hold the bat ?", "does a man hold a bat ?"),
        ("is he on it ?", "is he under it ?"),
        ("is he holding it ?", "was he holding it ?"),
        ("does he hold it ?", "does she hold it ?"),
        ("can he hold it ?", "does he hold it ?"),
    ],
)
def test_another_word_than_the_verb_is_refused(text, other):
    with pytest.raises(
        ValueError, match=", and the changed word is not a verb: expected another verb"
    ):
        swapped_word(text, other)


def test_letters_of_two_codes_are_no_other_word():
    with pytest.raises(ValueError, match="without a changed word: expected another verb"):
        swapped_word("is it caf\u00e9 ?", "is it cafe\u0301 ?")


def test_a_verb_form_may_follow_an_article():
    assert swapped_word("is there a running man ?", "is there a seated man ?")[2] == "seated"


around = st.text(max_size=20)


# No letters: behind an article no verb is taken for one.
@given(st.text(alphabet="\u0301 ſ\t,.?'’-1\u2028", max_size=20), around)
def test_a_swapped_word_is_found_whatever_stands_around_it(before, after):
    text, other = (f"{before} {word} {after}" for word in ("hold", "kick"))
    start, end, word = swapped_word(text, other)
    assert (text[:start], text[start:end], text[end:], word) == (
        f"{before} ",
        "hold",
        f" {after}",
        "kick",
    )


@given(st.text(max_size=12), st.text(max_size=12))
def test_what_passes_differs_in_one_place(text, other):
    try:
        start, end, word = swapped_word(text, other)
    except ValueError:
        return
    assert text[:start] + word + text[end:] == other
    assert word.split() == [word]
    assert text[start:end].split() == [text[start:end]]


def test_the_pair_is_named_with_the_way_out():
    pair = ContrastivePair("1.png", "does he hold it ?", "does she kick it ?", "p7")
    with pytest.raises(ValueError, match=r"^pair 'p7'.*any_text \(--any-text\)\.$"):
        check_pair(pair)


def test_pairs_of_action_scenes_pass():
    for pair in contrastive_pairs("validation", 10):
        check_pair(pair)


@pytest.mark.skipif(REFERENCE is None, reason="RVELENS_REFERENCE names no folder")
def test_the_published_pairs_pass():
    rows = read_pair_rows(Path(str(REFERENCE)) / "ars_pairs_published_excerpt.jsonl")
    assert len(rows) == 40
    for _, row in rows:
        check_pair(ContrastivePair(row["image"], row["question"], row["contrastive"]))
