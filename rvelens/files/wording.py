"""Words of messages that depend on a value: the plural of a count, the article of a name."""

from __future__ import annotations

import re
from typing import Any

# Names whose first sound is not that of their first letter: "an HTML page", "a uint8", "a user".
_LIKE_A_VOWEL = re.compile(r"([aeio]|u(?!int|ni|s))|[AEFHILMNORSX](?=[A-Z])|[AEIO]|U(?!n?i|s|int)")


def counted(n: Any, noun: str, plural: str = "") -> str:
    """ "1 question", "2 questions".

    Args:
        n: how many.
        noun: in the singular, such as "question" or "hook point".
        plural: where it is not the noun with an s.
    """
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"


def too_few(n: Any, noun: str) -> str:
    """ "1 pair is too few", "2 pairs are too few"."""
    return f"{counted(n, noun)} {'is' if n == 1 else 'are'} too few"


def with_article(name: str) -> str:
    """ "an int", "a str": a name with the article that its sound asks for."""
    return f"{'an' if _LIKE_A_VOWEL.match(name) else 'a'} {name}"


def kind_of_value(value: object) -> str:
    """The type of a value with its article: "an int"."""
    return with_article(type(value).__name__)
