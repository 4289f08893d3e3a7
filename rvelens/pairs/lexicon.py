"""Verbs with their body parts (data/verbs.csv, written for this package), and their forms.

Forms come from lemminflect, a dictionary of English inflection, which the extra `pairs` installs.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import ModuleType

# Penn Treebank's tags: hold, holds, holding, held, held.
TAGS = ("VB", "VBZ", "VBG", "VBD", "VBN")
# "Is he seeing a bat" is no English, though "Does he see a bat" is.
NOT_PROGRESSIVE = frozenset({"see"})


@dataclass(frozen=True)
class Entry:
    """The entry of a verb in the table.

    Attributes:
        parts: the parts of a body or a vehicle that do it, such as "hand"; none if it is not an action.
        takes: what may follow: "object" (kick a ball), "nothing" (sit), "place" (sit on, near, under
            ...), or a word such as "at" (look at).
        offered: the entries of `takes` with which it may replace other verbs. Few verbs have any,
            because not every verb fits every object.
        by: the subjects that it may then have: "person", "animal", "thing".
        to: the classes of objects and places, see data/nouns.csv, that it may then have; none for any.
    """

    parts: frozenset[str]
    takes: frozenset[str]
    offered: frozenset[str]
    by: frozenset[str] = frozenset()
    to: frozenset[str] = frozenset()


@cache
def table() -> Mapping[str, Entry]:
    """The entry of each verb, by its base form."""
    path = resources.files("rvelens") / "data" / "verbs.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    columns = ("parts", "takes", "offered", "by", "to")
    return {row["verb"]: Entry(*(frozenset(row[c].split()) for c in columns)) for row in rows}


def inflect(verb: str, tag: str) -> tuple[str, ...]:
    """The forms of a verb for a tag, the usual form first: ("lay", "lied") for lie as VBD.

    Raises:
        ValueError: lemminflect is not installed.
    """
    return (verb,) if tag == "VB" else tuple(_lemminflect().getInflection(verb, tag))


@cache
def forms(tag: str) -> Mapping[str, str]:
    """The verbs of the table by their forms for a tag."""
    verb_of: dict[str, str] = {}
    for verb in table():
        for form in inflect(verb, tag):
            verb_of.setdefault(form, verb)
    return verb_of


def readings(word: str) -> frozenset[tuple[str, str]]:
    """Possible base forms and tags of a word as a verb; none if no dictionary of verbs has it."""
    word = word.lower()
    lemmas = _lemminflect().getAllLemmas(word, upos="VERB").get("VERB", ())
    return frozenset(
        (lemma, tag) for lemma in lemmas for tag in TAGS if word in inflect(lemma, tag)
    )


@cache
def nouns_of(word: str) -> tuple[str, ...]:
    """Possible base forms of a word as a noun, or of the last of two words joined by "_"."""
    first, joint, last = word.lower().rpartition("_")
    lemmas = _lemminflect().getAllLemmas(last, upos="NOUN").get("NOUN", ())
    return tuple(sorted(f"{first}{joint}{lemma}" for lemma in lemmas))


def _lemminflect() -> ModuleType:
    try:
        import lemminflect
    except ImportError as error:
        raise ValueError(
            "contrastive pairs need the package lemminflect: expected it beside rvelens; "
            "run pip install 'rvelens[pairs]'."
        ) from error
    return lemminflect
