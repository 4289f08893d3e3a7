"""Closed lists of English words, and patterns of them."""

from __future__ import annotations

import re
import string


def _split(text: str) -> list[str]:
    return text.split()


PLACE = _split(
    "in on near next beside behind under underneath beneath over above below between among along "
    "across around through inside outside into onto against front by"
)
PREPOSITIONS = PLACE + _split("at to with without of for from about off up down out away back")
DETERMINERS = _split(
    "a an the this that these those his her its their my your our some any each every both all no "
    "another one two three four five several many"
)
BE = _split(
    "is are was were be been being isn't aren't wasn't weren't what's who's where's there's that's "
    "he's she's it's i'm they're we're you're"
)
DO = _split("do does did don't doesn't didn't")
HAVE = _split("has have had hasn't haven't hadn't")
MODAL = _split("can could will would should may might must can't couldn't won't wouldn't")
AUXILIARIES = BE + DO + HAVE + MODAL
LINKS = [*PREPOSITIONS, "and", "or"]
# What is never a word of a subject's own: it begins something else.
STOP = DETERMINERS + LINKS + AUXILIARIES
STOP += _split("while then if whether who which what where when why how there")

# Things more often than actions: verbs only before what they are done to ("building a house").
THINGS = _split(
    "building painting drawing serving landing dressing knitting weaving water milk butter fish"
)

# Small letters and straight apostrophes, one character for each.
SMALL = str.maketrans(string.ascii_uppercase + "’", string.ascii_lowercase + "'")
_END = r"(?![\w'’-])"
_BEGIN = r"(?<![\w'’-])"


def any_of(words: list[str], but: str = "") -> str:
    """A pattern that matches any of some whole words."""
    longest_first = sorted({*words} - {but}, key=lambda word: (-len(word), word))
    return f"{_BEGIN}(?:{'|'.join(map(re.escape, longest_first))}){_END}"
