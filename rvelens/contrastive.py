"""Contrastive pairs: an image and two texts, which differ in one word alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

# A word is what stands between spaces and the marks of a sentence: "don't" and "T-shirt" are one.
_WORD = re.compile(r"""([^\s.,;:!?"“”«»()\[\]{}…]+)""")


@dataclass(frozen=True)
class ContrastivePair:
    """An image, a question, and the same question with another verb: (I, T) and (I, T-hat).

    Attributes:
        image: a path or a PIL image.
        question: the original text T.
        contrastive: the text with the verb of another body part.
        id: what names the pair in messages and files.
    """

    image: str | Path | Image.Image
    question: str
    contrastive: str
    id: str = ""

    def __post_init__(self) -> None:
        if self.question.strip() == self.contrastive.strip():
            raise ValueError(
                f"pair {self.id!r}: both texts are {self.question!r}: expected texts that differ in "
                "the verb; a pair without a change says nothing about any head."
            )


def check_pair(pair: ContrastivePair) -> None:
    """Refuse a pair whose texts do not differ in one word alone, the same place in both.

    Which word that is, and whether it is a verb, is not looked at: see `rvelens.pairs.make`.

    Raises:
        ValueError: the texts differ in nothing, in case, in spacing, or in more than one word.
    """
    try:
        swapped_word(pair.question, pair.contrastive)
    except ValueError as error:
        raise ValueError(
            f"pair {pair.id!r}: {str(error).rstrip('.')}, or score them as they are with any_text "
            "(--any-text)."
        ) from error


def swapped_word(text: str, other: str) -> tuple[int, int, str]:
    """Where one word of a text has another word in its place: its start, its end, the other word.

    All else, spaces and marks included, has to be the same, character by character. Which word of
    the text is its verb is not looked at.

    Raises:
        ValueError: the texts are the same, differ in a word's case alone, or in more than one word.
    """
    # Odd pieces are words, even ones what stands between them.
    pieces, others = _WORD.split(text), _WORD.split(other)
    changed = [i for i, pair in enumerate(zip(pieces, others, strict=False)) if len(set(pair)) > 1]
    if len(pieces) != len(others) or any(i % 2 == 0 for i in changed) or len(changed) > 1:
        raise ValueError(
            f"{text!r} became {other!r}: expected one word in the place of another and all else as it "
            "was; correct the texts."
        )
    if not changed or pieces[changed[0]].casefold() == others[changed[0]].casefold():
        raise ValueError(
            f"{text!r} became {other!r}, with no other word: expected another verb; correct the texts."
        )
    at = changed[0]
    start = len("".join(pieces[:at]))
    return start, start + len(pieces[at]), others[at]


def with_suffix(pairs: Sequence[ContrastivePair], suffix: str) -> list[ContrastivePair]:
    """Pairs with a text behind both of their questions, as `--suffix` puts it behind a benchmark's."""
    return [
        replace(
            pair,
            question=f"{pair.question} {suffix}".strip(),
            contrastive=f"{pair.contrastive} {suffix}".strip(),
        )
        for pair in pairs
    ]
