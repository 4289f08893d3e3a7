"""How a free answer becomes yes or no: the published rules, and a strict one beside them.

None means unparsed: neither yes nor no, so wrong whatever the truth is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = Callable[[str], bool | None]

_WORD = re.compile(r"[^\W_]+")


def strict(text: str) -> bool | None:
    """The first word is yes or no, in any case and punctuation, and the other never follows."""
    words = _WORD.findall(text.casefold())
    if not words or words[0] not in ("yes", "no"):
        return None
    other = "no" if words[0] == "yes" else "yes"
    return None if other in words else words[0] == "yes"


def pope(text: str) -> bool | None:
    """No if "No", "not" or "no" is a word before the first full stop, else yes (POPE's evaluation).

    Commas are dropped and words split at spaces alone, so that an empty answer, "NO" or "No!" is
    a yes: that is how the published numbers were counted.
    """
    # https://github.com/AoiDragon/POPE/blob/f3ec604337f1d1c9723ef8d01b4accacf8badb3d/evaluate.py#L12-L20
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def rbench(text: str) -> bool | None:
    """The same as `pope`: R-Bench's evaluation is built on POPE's."""
    # https://github.com/mrwu-mac/R-Bench/blob/d9d73c04107d478460cadf0d7a32feec06098208/eval.py#L19-L28
    return pope(text)


def amber(text: str) -> bool | None:
    """Exactly "Yes" is yes and exactly "No" is no; anything else is wrong (AMBER's inference.py)."""
    # https://github.com/junyangwang0410/AMBER/blob/534babf6bbfcce2e735c26289dedfb21cef3c939/inference.py#L186-L214
    return {"Yes": True, "No": False}.get(text)


def mmrel(text: str) -> bool | None:
    """Yes if "yes" occurs anywhere in any case, else no if "no" does (VCD's script, MMRel's choice).

    An answer with neither word is unparsed; that script counts it as a wrong yes where no is right.
    It asks only whether the true word occurs, inside other words too. So it counts an
    answer with both as right whatever the truth; here such an answer is a yes.
    """
    # https://github.com/DAMO-NLP-SG/VCD/blob/d6568ff81b8fd306a49e630df44f2db5c2300191/experiments/eval/eval_pope.py#L39-L50
    lowered = text.lower()
    if "yes" in lowered:
        return True
    return False if "no" in lowered else None


def judged(text: str) -> bool | None:
    """None: an open-ended answer has no yes or no, a judge scores it."""
    return None
