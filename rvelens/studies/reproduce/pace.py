"""How fast a model answers on this machine, from a few questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rvelens.benchmarks import Item
from rvelens.evaluate.answering import Decoding, answer
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.studies.kit.base import Work

SECONDS = 60.0  # that measuring takes at most, where a single question takes less than a sixth
_TOKENS = 8
_PLAIN = Method("vanilla", {}, ())


@dataclass(frozen=True)
class Pace:
    """Time of the plain model on this machine.

    Attributes:
        prompt: seconds from a prompt to its first token, image processing included.
        token: seconds of each further token of an answer.
        length: mean number of tokens of an answer, the end included.
        questions: that were asked.
    """

    prompt: float
    token: float
    length: float
    questions: int

    def decoded(self, work: Work) -> int:
        """Tokens behind the first of all answers, about."""
        return round(work.answers * max(0.0, (work.tokens or self.length) - 1))

    def seconds(self, work: Work) -> float:
        """Time of some work, about."""
        return work.prompts * self.prompt + self.decoded(work) * self.token


def measure_pace(
    model: HookedLVLM,
    items: Sequence[Item],
    decoding: Decoding,
    batch_size: int = 8,
    seconds: float = SECONDS,
) -> Pace:
    """Ask one batch of questions three times: for one token, for nine, and as they are asked.

    The batch is smaller where `seconds` would not be enough for it.

    Args:
        model: without hooks that are on.
        items: questions whose pictures can be read; the first ones are asked.
        decoding: prompt, suffix and length.
        batch_size: questions at most.
        seconds: that it may take.
    """
    decoding = decoding.settled(items)
    _timed(model, items[:1], decoding, 1)  # warms up
    alone = max(_timed(model, items[:1], decoding, 1), 1e-6)
    # Twice one token, once nine, and once an answer: with eight tokens at the price of a prompt, six.
    asked = items[: max(1, min(batch_size, int(seconds / (6 * alone))))]
    first = _timed(model, asked, decoding, 1)
    more = _timed(model, asked, decoding, 1 + _TOKENS)
    texts = [text for text, _ in _answers(model, asked, decoding, None)]
    tokenizer = model.processor.tokenizer
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]
    n = len(asked)
    longest = decoding.max_new_tokens or max(lengths)
    return Pace(
        first / n,
        max(0.0, more - first) / (_TOKENS * n),
        sum(min(length, longest) for length in lengths) / n,
        n,
    )


def _timed(model: HookedLVLM, items: Sequence[Item], decoding: Decoding, n: int) -> float:
    start = time.perf_counter()
    _answers(model, items, replace(decoding, max_new_tokens=n), n)
    return time.perf_counter() - start


def _answers(
    model: HookedLVLM, items: Sequence[Item], decoding: Decoding, least: int | None
) -> list[tuple[str, float | None]]:
    texts = [decoding.question(item) for item in items]
    images = {item.image: item.load() for item in items}
    pictures = [images[item.image] for item in items]
    names = [item.image for item in items]
    return answer(model, _PLAIN, pictures, texts, names, decoding, least)
