"""Stages 1 and 2 for one question: a verb of another body part, and whether it fits.

Only the verb changes. Its case and its form (hold, holds, holding, held) stay the same, as does every
other character of the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvelens.pairs.find import Finder, NotMadeError, Verb, admits, by_rules, find_verb
from rvelens.pairs.lexicon import NOT_PROGRESSIVE, Entry, inflect, readings, table
from rvelens.pairs.nouns import Around, around

MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class ImageQuestion:
    """A question about an image file.

    Attributes:
        id: its unique name.
        image: the path of its image below the folder of images, for the file of pairs.
        path: the full path of the image.
        text: the question.
    """

    id: str
    image: str
    path: Path
    text: str


@dataclass(frozen=True)
class Verdict:
    """The result of stage 2 for a candidate.

    Attributes:
        candidate: the verb, in the form that the question needs.
        fits: whether it is accepted.
        reason: why it is not accepted; for an accepted candidate, what could not be checked, or "".
        by: "table", or the name of a model.
    """

    candidate: str
    fits: bool
    reason: str
    by: str = "table"


@dataclass(frozen=True)
class Made:
    """A contrastive text and how it was made.

    Attributes:
        contrastive: the question with another verb.
        verb: the verb as it is in the question; `candidate` is the word that replaces it.
        attempts: the number of candidates that were tried, including this one.
        verdicts: the verdicts of all candidates, in order.
    """

    contrastive: str
    verb: str
    candidate: str
    attempts: int
    verdicts: tuple[Verdict, ...]


# Raises NotMadeError where a question gives no pair.
Generator = Callable[[ImageQuestion], Made]


def by_lexicon(
    *, seed: int = 55, finder: Finder = by_rules, number: int = 1, attempts: int = MAX_ATTEMPTS
) -> Generator:
    """Candidates from the table: offered verbs of another body part, in random order.

    They fit the subject and the object if the table of nouns has both, see `rvelens.pairs.nouns`.

    Args:
        seed: with the question's id, determines the order, so other questions do not change it.
        finder: finds the verb, see `rvelens.pairs.find`.
        number: which of several verbs to change, from 1.
        attempts: the maximum number of candidates to try.
    """

    def make(question: ImageQuestion) -> Made:
        verb = find_verb(question.text, finder, number)
        verdicts: list[Verdict] = []
        suited = around(question.text, verb)
        order = random.Random(f"{seed} {question.id}")
        for candidate in _offers(verb, suited, order)[:attempts]:
            word = inflect(candidate, verb.tag)[0]
            verdicts.append(verify(question.text, verb, word))
            if verdicts[-1].fits:
                return finish(question.text, verb, word, len(verdicts), verdicts)
        if verdicts:
            raise NotMadeError(f"none of {len(verdicts)} candidates fits: {verdicts[-1].reason}")
        raise NotMadeError(
            f"the table has no verb of another body part for a {suited.subject} before {verb.takes!r}"
        )

    return make


def _offers(verb: Verb, suited: Around, order: random.Random) -> list[str]:
    """Verbs on offer for what stands around, of parts that the question's verb does not use."""
    parts = table()[verb.lemma].parts
    names = [
        name
        for name, entry in table().items()
        if admits(entry.offered, verb.takes)
        and suited.subject in entry.by
        and (verb.takes == "nothing" or not entry.to or entry.to & suited.object)
        and entry.parts.isdisjoint(parts)
        and not (verb.tag == "VBG" and name in NOT_PROGRESSIVE)
    ]
    order.shuffle(names)
    return names


def verify(text: str, verb: Verb, word: str) -> Verdict:
    """Stage 2 with the table: checks for another body part, the same form, and the words after it.

    Args:
        text: the question.
        verb: its verb; with an empty `tag`, each possible form of the verb is accepted.
        word: the candidate, in the form for the question.
    """
    old = text[verb.start : verb.end]
    tags = {verb.tag} if verb.tag else {tag for _, tag in readings(old)}
    lemmas = sorted(lemma for lemma, tag in readings(word) if tag in tags)
    if not lemmas:
        return Verdict(word, False, f"{word!r} is no verb of the form of {old!r}")
    in_table = [lemma for lemma in lemmas if lemma in table()]
    if not in_table:
        return Verdict(word, True, f"{word!r} is not in the table of verbs")
    if verb.lemma in lemmas:
        return Verdict(word, False, f"{word!r} is the same verb")
    reason = _against(in_table[0], verb)
    return Verdict(word, not reason, reason)


def _against(candidate: str, verb: Verb) -> str:
    """What the table says against a verb in the place of another; "" if nothing."""
    new, old = table()[candidate], table().get(verb.lemma, Entry(*[frozenset()] * 3))
    if not new.parts:
        return f"{candidate!r} is not an action of a body part"
    if new.parts & old.parts:
        return f"{candidate!r} is done by the same part: {' '.join(sorted(new.parts & old.parts))}"
    if not admits(new.takes, verb.takes):
        return f"{candidate!r} does not go with {verb.takes!r} after it"
    return ""


def finish(text: str, verb: Verb, word: str, attempts: int, verdicts: list[Verdict]) -> Made:
    """The contrastive text: the question with a candidate instead of the verb, in the verb's case."""
    old = text[verb.start : verb.end]
    new = in_case_of(old, word)
    contrastive = text[: verb.start] + new + text[verb.end :]
    return Made(contrastive, old, new, attempts, tuple(verdicts))


def in_case_of(old: str, word: str) -> str:
    """A word in the letter case of another word: upper case, capitalised or lower case."""
    if len(old) > 1 and old.isupper():
        return word.upper()
    return word.capitalize() if old[:1].isupper() else word.lower()
