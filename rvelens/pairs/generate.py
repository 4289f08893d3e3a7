"""Stages 1 and 2 for one question: a verb of another body part, and whether it fits.

Only the verb changes. Its case and its form are kept (hold, holds, holding, held), and so is every
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
        id: names it among the others.
        image: its image's name in the file of pairs, from the folder of images on.
        path: where the image is.
        text: the question.
    """

    id: str
    image: str
    path: Path
    text: str


@dataclass(frozen=True)
class Verdict:
    """What stage 2 said of a candidate.

    Attributes:
        candidate: the verb, in the form that the question needs.
        fits: whether it may stand.
        reason: why it may not; of one that may, what could not be told, or "".
        by: "table", or the name of a model.
    """

    candidate: str
    fits: bool
    reason: str
    by: str = "table"


@dataclass(frozen=True)
class Made:
    """A contrastive text and how it came about.

    Attributes:
        contrastive: the question with another verb.
        verb: the question's, as it stands there; `candidate` is what stands in its place.
        attempts: candidates that were tried, this one included.
        verdicts: of all of them, in their order.
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
    """Candidates from the table: verbs on offer that another body part does, in a random order.

    They suit the subject and the object as far as the table of nouns knows both, see
    `rvelens.pairs.nouns`.

    Args:
        seed: of the order, together with the question's id: other questions change nothing.
        finder: how the verb is found, see `rvelens.pairs.find`.
        number: of several verbs the first, the second and so on.
        attempts: candidates that are tried at most.
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
    """Stage 2, as far as the table knows: another body part, the same form, what may follow it.

    Args:
        text: the question.
        verb: its verb; with an empty `tag`, any form that the verb can be of will do.
        word: the candidate, in the form in which it is to stand.
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
    """The contrastive text with a candidate in the verb's place, in the verb's case."""
    old = text[verb.start : verb.end]
    new = in_case_of(old, word)
    contrastive = text[: verb.start] + new + text[verb.end :]
    return Made(contrastive, old, new, attempts, tuple(verdicts))


def in_case_of(old: str, word: str) -> str:
    """A word in capitals, with a capital, or in small letters, as another one is written."""
    if len(old) > 1 and old.isupper():
        return word.upper()
    return word.capitalize() if old[:1].isupper() else word.lower()
