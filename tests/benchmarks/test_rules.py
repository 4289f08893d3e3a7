"""Answer rules: against the published evaluation scripts, written out again in plain steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.benchmarks import rules

WORDS = ["Yes", "yes", "YES", "No", "no", "NO", "not", "snow", "Yesterday", "the", "dog", ""]
ENDS = [" ", ", ", ". ", ",", ".", "\n", "!", "-", "_"]
ANSWERS = st.lists(st.sampled_from(WORDS + ENDS), max_size=12).map("".join) | st.text()


def slow_pope(text):
    sentence = ""
    for letter in text:
        if letter == ".":
            break
        if letter != ",":
            sentence += letter
    says_no = any(word in ("No", "not", "no") for word in sentence.split(" "))
    return not says_no


def slow_strict(text):
    letters = [c if c.isalnum() else " " for c in text.casefold()]
    words = "".join(letters).split()
    if words and words[0] == "yes":
        return None if "no" in words[1:] else True
    if words and words[0] == "no":
        return None if "yes" in words[1:] else False
    return None


@given(ANSWERS)
def test_pope_and_rbench(text):
    assert rules.pope(text) is slow_pope(text)
    assert rules.rbench(text) is slow_pope(text)


@given(ANSWERS)
def test_strict(text):
    assert rules.strict(text) is slow_strict(text)


@given(ANSWERS)
def test_mmrel_agrees_with_the_script_wherever_one_answer_occurs(text):
    lowered = text.lower()
    for truth, word in ((True, "yes"), (False, "no")):
        right_by_script = word in lowered
        if not ("yes" in lowered and "no" in lowered):
            assert (rules.mmrel(text) is truth) == right_by_script
    if "yes" in lowered and "no" in lowered:
        assert rules.mmrel(text) is True


@pytest.mark.parametrize(
    ("answer", "pope", "amber", "mmrel", "strict"),
    [
        ("Yes", True, True, True, True),
        ("No", False, False, False, False),
        ("yes", True, None, True, True),
        ("No.", False, None, False, False),
        ("NO", True, None, False, False),
        ("No!", True, None, False, False),
        ("", True, None, None, None),
        ("There is snow.", True, None, False, None),
        ("There is not.", False, None, False, None),
        ("Yes, there is no dog.", False, None, True, None),
        ("Yes. No.", True, None, True, None),
        ("**Yes**, it is.", True, None, True, True),
        ("The answer is no", False, None, False, None),
        ("Yesterday", True, None, True, None),
        ("No, not yes", False, None, True, None),
    ],
)
def test_what_each_rule_makes_of_an_answer(answer, pope, amber, mmrel, strict):
    assert rules.pope(answer) is pope
    assert rules.rbench(answer) is pope
    assert rules.amber(answer) is amber
    assert rules.mmrel(answer) is mmrel
    assert rules.strict(answer) is strict
    assert rules.judged(answer) is None
