"""Classes of the subject and the object of a verb (data/nouns.csv, written for this package).

This is a table of nouns, not a language model. It only prevents proposals such as "bite a ground" and
"an airplane kisses". `Around` says what is assumed of nouns that are not in the table.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from rvelens.pairs.find import Verb, is_passive
from rvelens.pairs.lexicon import nouns_of
from rvelens.pairs.words import AUXILIARIES, PREPOSITIONS, SMALL, any_of

PERSON, ANIMAL, THING = "person", "animal", "thing"
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*(?P<owner>'s?(?!\w))?")
_AUXILIARY = re.compile(any_of(AUXILIARIES))
_LEADING = re.compile(rf"\s*{any_of(PREPOSITIONS)}")
# "a piece of cake" goes on to the cake.
_PHRASE_END = re.compile(rf"[?.!,;:]|{any_of([*PREPOSITIONS, 'and', 'or', 'while'], but='of')}")


@dataclass(frozen=True)
class Around:
    """The classes of the nouns around a verb.

    Attributes:
        subject: "person", "animal" or "thing"; "person" for a noun that is not in the table, because
            most subjects are persons.
        object: the classes of the object of the verb, or of the place; none if it is not in the table.
    """

    subject: str
    object: frozenset[str]


@cache
def classes() -> Mapping[str, frozenset[str]]:
    """The classes of each noun; a noun of two words is joined by "_"."""
    path = resources.files("rvelens") / "data" / "nouns.csv"
    classes_of: dict[str, frozenset[str]] = {}
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        for noun in row["nouns"].split():
            classes_of[noun] = classes_of.get(noun, frozenset()) | {row["class"]}
    return classes_of


def around(question: str, verb: Verb) -> Around:
    """The classes of a verb's subject and object, each from the first noun in the table."""
    lower = question.translate(SMALL)
    before, after = lower[: verb.start], lower[verb.end :]
    # "Which ball does the man kick": the subject follows the auxiliary, if anything does.
    *_, last = _AUXILIARY.split(before)
    agent = _first(last) or _first(before)
    # "sit on the bed": the object is past the verb's own preposition.
    own = None if verb.takes == "object" else _LEADING.match(after)
    patient = _first(_until_end(after[own.end() :] if own else after))
    if is_passive(lower, verb):
        *_, by = after.partition(" by ")
        agent, patient = _first(_until_end(by)), agent
    kinds = [kind for kind in (PERSON, ANIMAL) if kind in agent]
    return Around(kinds[0] if kinds else THING if agent else PERSON, patient)


def _until_end(after: str) -> str:
    end = _PHRASE_END.search(after)
    return after[: end.start()] if end else after


def _first(words: str) -> frozenset[str]:
    """The classes of the first noun; of several in a row ("baseball player") those of the last."""
    noun_classes: frozenset[str] = frozenset()
    end = None
    past = ""
    for match in _WORD.finditer(words):
        if match["owner"]:  # "the dog's leash" is no dog
            continue
        word = match[0]
        kinds = _of(f"{past}_{word}") or _of(word)
        if end is not None and (not kinds or words[end : match.start()].strip()):
            break
        if kinds:
            noun_classes, end = kinds, match.end()
        past = word
    return noun_classes


def _of(word: str) -> frozenset[str]:
    """Of a noun in any number: "men", "surfboards", "hot_dogs"."""
    names = [word, *nouns_of(word)]
    return next((classes()[name] for name in names if name in classes()), frozenset())
