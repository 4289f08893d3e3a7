"""The table of verbs, and their forms."""

from __future__ import annotations

import pytest

from rvelens.pairs.lexicon import TAGS, forms, inflect, readings, table

PARTS = set("hand mouth eye nose ear head foot seat knee body back paw wing wheel".split())  # noqa: SIM905


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("hold", "hold holds holding held held"),
        ("sit", "sit sits sitting sat sat"),
        ("hit", "hit hits hitting hit hit"),
        ("ride", "ride rides riding rode ridden"),
        ("eat", "eat eats eating ate eaten"),
        ("watch", "watch watches watching watched watched"),
        ("carry", "carry carries carrying carried carried"),
        ("lie", "lie lies lying lay lied"),
    ],
)
def test_forms(verb, expected):
    assert " ".join(inflect(verb, tag)[0] for tag in TAGS) == expected


@pytest.mark.parametrize("tag", TAGS)
def test_every_form_leads_back_to_its_verb(tag):
    for verb in table():
        for form in inflect(verb, tag):
            assert forms(tag)[form] == verb


def test_what_the_table_says_is_consistent():
    assert len(table()) > 300
    for verb, entry in table().items():
        assert verb.isalpha(), verb
        assert verb.islower(), verb
        assert entry.parts <= PARTS, verb
        assert entry.takes, verb
        assert entry.offered <= entry.takes, verb
        assert entry.parts or not entry.offered, verb


def test_what_a_word_can_be():
    assert readings("Held") == {("hold", "VBD"), ("hold", "VBN")}
    assert ("saw", "VB") in readings("saw")
    assert ("see", "VBD") in readings("saw")
    assert readings("table") >= {("table", "VB")}
    assert readings("xqzt") == frozenset()
