"""Contrastive pairs: an image and two texts that differ in exactly one word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from rvelens.files.arguments import refuse_wrong_types

# A word is what stands between spaces and the marks of a sentence: "don't" and "T-shirt" are one.
_WORD = re.compile(r"""([^\s.,;:!?"“”«»()\[\]{}…]+)""")

# Words that are no verbs of action, wherever they stand.
_CLOSED = re.compile(
    r"an?|the|this|that|these|those|his|hers?|its|their|my|your|our|s?he|it|they|we|you|i|him|them|us"
    r"|is|are|was|were|be|been|being|am|can|could|will|would|should|may|might|must"
    r"|in|on|at|to|of|by|for|from|with|without|near|beside|behind|under|above|below|between|over|into"
    r"|onto|and|or|not|no|one|two|three|who|what|which|where|when|why|how|there"
)
_ARTICLES = frozenset({"a", "an", "the"})


@refuse_wrong_types
@dataclass(frozen=True)
class ContrastivePair:
    """An image, a question, and the same question with another verb: (I, T) and (I, T-hat).

    Attributes:
        image: a path or a PIL image.
        question: the original text T.
        contrastive: the text with a verb for another body part.
        id: the name of the pair in messages and files.
    """

    image: str | Path | Image.Image
    question: str
    contrastive: str
    id: str = ""

    def __post_init__(self) -> None:
        if self.question.strip() == self.contrastive.strip():
            raise ValueError(
                f"pair {self.id!r}: both texts are {self.question!r}: expected texts that differ "
                "in the verb; change one of them."
            )


def check_pair(pair: ContrastivePair) -> None:
    """Refuse a pair whose texts do not differ in exactly one word at the same place.

    `swapped_word` checks roughly whether this word is a verb; `rvelens.pairs.make` checks more.

    Raises:
        ValueError: the texts are equal, or differ in case, in spacing, in more than one word, or in a
            word that cannot be a verb.
    """
    try:
        swapped_word(pair.question, pair.contrastive)
    except ValueError as error:
        raise ValueError(
            f"pair {pair.id!r}: {str(error).rstrip('.')}, or score them as they are with any_text "
            "(--any-text)."
        ) from error


def swapped_word(text: str, other: str) -> tuple[int, int, str]:
    """The word that differs between two texts: its start, its end, and the other word.

    Everything else, spaces and punctuation included, must be the same, character by character. Without
    a dictionary it is not known whether the word is a verb. So only two cases are refused: words that
    are never verbs ("the", "on"), and words after an article ("a man", "a woman"), except forms in -ing
    and -ed.

    Raises:
        ValueError: the texts are the same, or differ only in a word's case or Unicode encoding, in more
            than one word, or in a word that cannot be a verb.
    """
    # Odd pieces are words, even ones what stands between them.
    pieces, others = _WORD.split(text), _WORD.split(other)
    changed = [i for i, pair in enumerate(zip(pieces, others, strict=False)) if len(set(pair)) > 1]
    if len(pieces) != len(others) or any(i % 2 == 0 for i in changed) or len(changed) > 1:
        raise ValueError(
            f"{text!r} became {other!r}: expected texts that differ in one word; correct them."
        )
    if not changed or _bare(pieces[changed[0]]) == _bare(others[changed[0]]):
        raise ValueError(
            f"{text!r} became {other!r} without a changed word: expected another verb; "
            "correct the texts."
        )
    at = changed[0]
    if not _may_be_verbs(pieces[at - 2] if at > 1 else "", pieces[at], others[at]):
        raise ValueError(
            f"{text!r} became {other!r}, and the changed word is not a verb: expected another "
            "verb; correct the texts."
        )
    start = len("".join(pieces[:at]))
    return start, start + len(pieces[at]), others[at]


def _bare(word: str) -> str:
    """A word without its case, and without what cannot be seen of it."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return "".join(c for c in plain if unicodedata.category(c) != "Cf")


def _may_be_verbs(before: str, word: str, other: str) -> bool:
    """Whether two words may be verbs where they stand, behind the word before them."""
    words = _bare(word), _bare(other)
    if any(map(_CLOSED.fullmatch, words)):
        return False
    return before.lower() not in _ARTICLES or all(w.endswith(("ing", "ed")) for w in words)


@refuse_wrong_types
def with_suffix(pairs: Sequence[ContrastivePair], suffix: str) -> list[ContrastivePair]:
    """Pairs with a text after both questions, as `--suffix` adds it to the questions of a benchmark."""
    return [
        replace(
            pair,
            question=f"{pair.question} {suffix}".strip(),
            contrastive=f"{pair.contrastive} {suffix}".strip(),
        )
        for pair in pairs
    ]
