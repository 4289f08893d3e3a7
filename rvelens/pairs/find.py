"""Finds the verb of a question, by rules on its words or by a spaCy pipeline.

The rules are regular expressions over the forms of the shipped verbs. A blank spaCy pipeline would not
do: between "does" and its verb there is a subject of any length. A regular expression describes it in
one line, but spaCy's token patterns have no groups. Both give exact offsets. A trained pipeline
separates nouns from verbs better. spaCy does not ship one, and rvelens downloads none. If one is
installed, it can be used by its name.

Nouns that are also verbs ("a drink", "a watch") are recognised by their place: a verb follows its
subject, and never follows an article. If two adjacent words remain, or none, the question is reported
and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rvelens.files.arguments import refuse_wrong_types
from rvelens.pairs.lexicon import TAGS, forms, table
from rvelens.pairs.words import (
    AUXILIARIES,
    BE,
    DETERMINERS,
    DO,
    HAVE,
    LINKS,
    MODAL,
    PLACE,
    PREPOSITIONS,
    SMALL,
    STOP,
    THINGS,
    any_of,
)


class NotMadeError(ValueError):
    """A short reason why a question has no contrastive text; not an error of the caller."""


@dataclass(frozen=True)
class Verb:
    """A verb in a question.

    Attributes:
        start, end: where it begins and ends in the question, in characters.
        lemma: its base form.
        tag: its form, one of `lexicon.TAGS`.
        takes: what follows it, as in `lexicon.Entry.takes`; a preposition such as "on" for "place".
    """

    start: int
    end: int
    lemma: str
    tag: str
    takes: str


# From a question to its verbs, in their order.
Finder = Callable[[str], list[Verb]]


_GAP = r",?\s+"


_WORD = rf"(?!{any_of(STOP)})\w[\w'’-]*"
_NOUNS = rf"(?:{any_of(DETERMINERS)}{_GAP})*{_WORD}(?:{_GAP}{_WORD}){{0,4}}?"
_SUBJECT = rf"{_NOUNS}(?:(?:{_GAP}{any_of(LINKS)})+{_GAP}{_NOUNS})*?"
_IN_THE_IMAGE = re.compile(
    r"\s+(?:in|of|on)\s+(?:the|this)\s+(?:image|picture|photo|photograph|scene)\b"
)
_AFTER = re.compile(rf"\s+({any_of(PREPOSITIONS)})")
_CLAUSE_ENDS = re.compile(r"\s*(?:[?.!,;:]|$)|\s+(?:and|or|while)\b")
# "Can you see a man holding a bat?" asks about holding.
_SEEING = re.compile(
    rf"\s*(?:{any_of(DO + MODAL)}\s+(?:you|we|i)\s+(?:see|find|spot|notice|(?:tell|say)(?:\s+me)?)\b"
    r"|(?:please\s+)?tell\s+me\b"
    r"|(?:do|does)\s+(?:the|this)\s+(?:image|picture|photo|photograph|scene)\s+(?:show|contain|depict)\b)"
    r"\s*"
)
# "picking the ball up", "putting a hat on": the particle is part of what the verb says.
_PARTICLE_ENDS = re.compile(r"[^?.!,;:]*?\s(up|off|out|away|on|down)(?=\s*[?.!,;:]|\s*\Z)")
# What takes "hold" and not "holds".
_PLURAL = r"(?:they|we|you|people|men|women|children|police|\w+[^\Wsui]s)"
# "What is the man holding?": the object stands before.
_WANTS_OBJECT = re.compile(
    rf"\s*(?:what's|(?:what|which|whom?)(?:{_GAP}{_WORD}){{0,4}}{_GAP}{any_of(AUXILIARIES)})"
    rf"{_GAP}{_SUBJECT}{_GAP}\Z"
)
_HAS = re.compile(any_of(HAVE))
_AUXILIARY = re.compile(any_of(DO + MODAL))


@cache
def _rules() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Patterns with what forms of a verb each places.

    In this order: "does a man hold", "can a man hold"; "is (there) a man holding"; "is the ball held
    by"; "has the man held"; "the man holds", "a man holding"; "men hold"; "who holds", "which
    man held".
    """
    subject = f"{_GAP}{_SUBJECT}{_GAP}"
    maybe = f"{_GAP}(?:there{_GAP})?(?:{_SUBJECT}{_GAP})??"
    follows = rf"(?=\s+{any_of(PREPOSITIONS)})"
    tags_of = {
        (any_of(DO + MODAL) + subject, ""): ("VB",),
        (any_of(BE) + maybe, ""): ("VBG",),
        (any_of(BE) + maybe, follows): ("VBN",),
        (any_of(HAVE) + maybe, ""): ("VBN",),
        (rf"\A\s*(?:(?:that|whether|if)\s+)?{_SUBJECT}{_GAP}", ""): ("VBZ", "VBD", "VBG"),
        (
            rf"\A\s*(?:{any_of(DETERMINERS)}{_GAP})?(?:{_WORD}{_GAP}){{0,3}}?{_PLURAL}{_GAP}",
            "",
        ): ("VB",),
        (any_of(["who", "that", "which", "what"]) + maybe, ""): ("VBZ", "VBD"),
    }
    return tuple(
        (re.compile(before + _verb(tags) + after), tags)
        for (before, after), tags in tags_of.items()
    )


@cache
def _verb(tags: tuple[str, ...]) -> str:
    words = any_of([form for tag in tags for form in forms(tag)])
    return rf"(?P<verb>(?!{any_of(THINGS)}(?!{_GAP}{any_of(DETERMINERS)})){words})"


@cache
def _later(tag: str) -> re.Pattern[str]:
    """A further verb: "and" and the same form, or a word of a noun and -ing."""
    same, ing = _verb((tag,)), _verb(("VBG",)).replace("?P<verb>", "?P<ing>")
    return re.compile(
        rf"{any_of(['and', 'or', 'then'])}{_GAP}{same}|(?:{_WORD}|and|or|while){_GAP}{ing}"
    )


def by_rules(question: str) -> list[Verb]:
    """The verbs of the table that the rules find; [] if there is none.

    Raises:
        NotMadeError: either of two adjacent words may be the verb.
        ValueError: lemminflect is not installed.
    """
    lower = question.translate(SMALL)
    skip = _asked_from(lower)
    matches = [(rule.search(lower[skip:]), tags) for rule, tags in _rules()]
    spans = [(*m.span("verb"), tags) for m, tags in matches if m is not None]
    if not spans:
        return []
    start, end, tags = min(spans)
    verbs = [_read(lower, start + skip, end + skip, tags)]
    _refuse_two(lower, verbs[0])
    for match in _later(verbs[0].tag).finditer(lower, verbs[0].end):
        name = "verb" if match["verb"] else "ing"
        verbs.append(_read(lower, *match.span(name), (verbs[0].tag, "VBG")))
    return verbs


def _asked_from(lower: str) -> int:
    """Past "can you see", which is not what is asked about."""
    match = _SEEING.match(lower)
    return match.end() if match else 0


def _read(lower: str, start: int, end: int, tags: tuple[str, ...]) -> Verb:
    word = lower[start:end]
    tag = next(tag for tag in tags if word in forms(tag))
    return verb_at(lower, start, end, forms(tag)[word], tag)


def _refuse_two(lower: str, verb: Verb) -> None:
    # "Sports drinks hold": without an auxiliary, the verb may have an s or not.
    alone = verb.tag == "VB" and not _AUXILIARY.search(lower, 0, verb.start)
    tags = ("VB", "VBZ") if alone else (verb.tag,)
    after = re.compile(rf"\s+{_verb(tags)}").match(lower, verb.end)
    if after:
        raise NotMadeError(
            f"either of {lower[verb.start : verb.end]!r} and {after['verb']!r} may be the verb"
        )


def verb_at(question: str, start: int, end: int, lemma: str, tag: str) -> Verb:
    """The verb at a known place, with a known base form, and a known form unless it is ""."""
    return Verb(start, end, lemma, tag, _takes(question.translate(SMALL), start, end, tag, lemma))


def is_passive(lower: str, verb: Verb) -> bool:
    """Whether a lower-case verb is passive, as in "held by the man", and not as in "has held"."""
    return verb.tag == "VBN" and not _HAS.search(lower, 0, verb.start)


def admits(takes: frozenset[str], follows: str) -> bool:
    """Whether the words after a verb are allowed, as `lexicon.Entry.takes` defines it."""
    return follows in takes or (follows in PLACE and "place" in takes)


def _takes(lower: str, start: int, end: int, tag: str, lemma: str) -> str:
    """What follows a verb; of a passive, and of a question for its object, "object"."""
    after = _AFTER.match(lower, end)
    if tag == "VBN" and not _HAS.search(lower, 0, start):
        return "object"
    wants = _WANTS_OBJECT.match(lower, 0, start) is not None
    if after and not _IN_THE_IMAGE.match(lower, end):
        entry = table().get(lemma)
        # "What is he holding in his hand?", but "What is he sitting on?"
        takes_object = (
            wants and entry and "object" in entry.takes and not admits(entry.takes, after[1])
        )
        return "object" if takes_object else after[1]
    if not (after or _CLAUSE_ENDS.match(lower, end)):
        particle = _PARTICLE_ENDS.match(lower, end)
        return particle[1] if particle else "object"
    return "object" if wants else "nothing"


def by_spacy(pipeline: Any) -> Finder:
    """A finder that uses the tags of a spaCy pipeline: verbs that are not auxiliaries.

    Args:
        pipeline: a pipeline such as `load_spacy` returns; its words need `tag_` with Penn Treebank
            tags.
    """
    auxiliaries = {*AUXILIARIES, "n't", "am", "doing", "done", "having"}

    def find(question: str) -> list[Verb]:
        lower = question.translate(SMALL)
        skip = _asked_from(lower)
        verbs = []
        for token in pipeline(question):
            tag = "VB" if token.tag_ == "VBP" else token.tag_
            start, end = token.idx, token.idx + len(token.text)
            word = lower[start:end]
            if tag in TAGS and start >= skip and word not in auxiliaries:
                lemma = forms(tag).get(word) or token.lemma_.lower() or word
                verbs.append(verb_at(question, start, end, lemma, tag))
        return verbs

    return find


def load_spacy(name: str) -> Any:
    """A spaCy pipeline that is installed on this machine, by its name or folder.

    Raises:
        ValueError: spaCy or the pipeline is not installed; nothing is downloaded.
    """
    try:
        import spacy
    except ImportError as error:
        raise ValueError(
            f"the pipeline {name!r} needs the package spacy: expected it beside rvelens; "
            "run pip install spacy."
        ) from error
    if not spacy.util.is_package(name) and not (Path(name) / "meta.json").is_file():
        raise ValueError(
            f"no spaCy pipeline {name!r} is installed: expected a name such as en_core_web_sm, or a "
            "folder; install it first, since nothing is downloaded from here, or leave it out."
        )
    return spacy.load(name)


@refuse_wrong_types
def find_verb(question: str, finder: Finder = by_rules, number: int = 1) -> Verb:
    """The verb to change in a question.

    Args:
        question: any text.
        finder: `by_rules`, or the result of `by_spacy`.
        number: which of several verbs, from 1.

    Raises:
        NotMadeError: no verb, no verb of that number, or two possible verbs; or the verb is not in the
            table, not with this preposition, or is not an action.
    """
    verbs = finder(question)
    if not verbs:
        raise NotMadeError("no verb of the table is in the place of a verb")
    if number > len(verbs):
        raise NotMadeError(f"only {len(verbs)} verbs: no verb number {number}")
    verb = verbs[number - 1]
    if verb.lemma not in table():
        raise NotMadeError(f"{verb.lemma!r} is not in the table of verbs")
    if not table()[verb.lemma].parts:
        raise NotMadeError(f"{verb.lemma!r} is not an action of a body part")
    if verb.takes in PREPOSITIONS and not admits(table()[verb.lemma].takes, verb.takes):
        raise NotMadeError(f"{verb.lemma!r} with {verb.takes!r} is not in the table of verbs")
    return verb
