"""Rules that read free answers: published rules for yes and no, a strict rule, and others.

None means unparsed: the rule finds no answer in the text. It counts as wrong whatever the truth is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# From an answer to yes, no or None.
Rule = Callable[[str], bool | None]
# From an answer and a reference to right, wrong or None.
TextRule = Callable[[str, str], bool | None]

_WORD = re.compile(r"[^\W_]+")
# A number with its sign and decimals is one word.
_WORD_OR_NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?|[^\W_]+")
_ARTICLES = frozenset(("a", "an", "the"))
# A letter that stands alone at the beginning: "B", "b)", "(B) a dog", "B: a dog".
_LETTER = re.compile(r"\W*([^\W\d_])\s*(?:[).:,\]]|$)")


def strict(text: str) -> bool | None:
    """The first word is yes or no, in any case and punctuation, and the other never follows."""
    words = _WORD.findall(text.casefold())
    if not words or words[0] not in ("yes", "no"):
        return None
    other = "no" if words[0] == "yes" else "yes"
    return None if other in words else words[0] == "yes"


def pope(text: str) -> bool | None:
    """No if "No", "not" or "no" is a word before the first full stop, else yes (POPE's evaluation).

    Commas are dropped, and words are split only at spaces. So an empty answer, "NO" and "No!" count as
    yes. The published numbers were counted in this way.
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

    An answer with neither word is unparsed. VCD's script counts it as a wrong yes if no is right. It
    checks only whether the true word occurs, also inside other words. So it counts an answer with both
    words as right whatever the truth is. Here such an answer is a yes.
    """
    # https://github.com/DAMO-NLP-SG/VCD/blob/d6568ff81b8fd306a49e630df44f2db5c2300191/experiments/eval/eval_pope.py#L39-L50
    lowered = text.lower()
    if "yes" in lowered:
        return True
    return False if "no" in lowered else None


def judged(text: str) -> bool | None:
    """None: an open-ended answer has no yes or no, a judge scores it."""
    return None


def text_words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text without case, punctuation and articles.

    A text of only articles is kept, because "A" may be a label.
    """
    every = tuple(_WORD_OR_NUMBER.findall(text.casefold()))
    return tuple(word for word in every if word not in _ARTICLES) or every


def exact(answer: str, reference: str) -> bool | None:
    """The answer has the words of the label and no others, without case, punctuation and articles."""
    answer_words = text_words(answer)
    return answer_words == text_words(reference) if answer_words else None


def contains(answer: str, reference: str) -> bool | None:
    """The words of the label follow one another somewhere in the answer."""
    answer_words = text_words(answer)
    return any(_places(answer_words, text_words(reference))) if answer_words else None


@dataclass(frozen=True)
class ChoiceRule:
    """The answer names one label of the choices and no other one; single letters must come first.

    A choice inside a longer choice counts as the longer one: "red" in "dark red". An answer that names
    none or several is unparsed. If all choices are single letters, the answer must begin with one as a
    word of its own: "B", "b)", "(B) a dog".

    Attributes:
        choices: the labels.
    """

    choices: tuple[str, ...]

    def __call__(self, answer: str, reference: str) -> bool | None:
        """Whether the choice that an answer names is the reference."""
        read = self.read(answer)
        return None if read is None else read == text_words(reference)

    def read(self, answer: str) -> tuple[str, ...] | None:
        """The words of the choice that an answer names."""
        labels = {text_words(choice) for choice in self.choices}
        if all(len(label) == 1 and len(label[0]) == 1 and label[0].isalpha() for label in labels):
            letter = _LETTER.match(answer.casefold())
            return (letter[1],) if letter and (letter[1],) in labels else None
        words = text_words(answer)
        spans = [(n, n + len(x), x) for x in labels for n in _places(words, x)]
        named = {
            label
            for start, end, label in spans
            if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
        }
        return named.pop() if len(named) == 1 else None


def _places(words: tuple[str, ...], part: tuple[str, ...]) -> Iterator[int]:
    """Where some words begin within others; nowhere if there are none."""
    for n in range(len(words) - len(part) + 1 if part else 0):
        if words[n : n + len(part)] == part:
            yield n


# By the names that `--rule` takes.
YES_NO: Mapping[str, Rule] = {
    "strict": strict,
    "pope": pope,
    "rbench": rbench,
    "amber": amber,
    "mmrel": mmrel,
}
TEXT: Mapping[str, TextRule] = {"exact": exact, "contains": contains}


def about(rule: Rule | TextRule) -> str:
    """The description of a rule in one sentence: the first line of its docstring."""
    return (rule.__doc__ or "").partition("\n")[0]
