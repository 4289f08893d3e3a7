"""How fast a model answers on this machine, from a few questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from rvelens.benchmarks import Item
from rvelens.evaluate.answering import Decoding, answer
from rvelens.heads.pair import ContrastivePair
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import load_image
from rvelens.speed.clock import interleaved
from rvelens.studies.kit.base import Work

SECONDS = 60.0  # that measuring takes at most, where a single question takes less than a twelfth
_TOKENS, _ROUNDS = 8, 2
# Prompts' time that a question takes: in three rounds, one to warm up, a prompt with one token and one
# with nine, which are as much again; and an answer.
_PROMPTS = 3 * (1 + 2) + 3
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


def pair_items(pairs: Sequence[ContrastivePair]) -> list[Item]:
    """The original text of each pair, as a question to time where no benchmark is asked."""
    return [
        Item(
            str(number), str(number), str(number), pair.question, None, None, "",
            partial(load_image, pair.image),
        )
        for number, pair in enumerate(pairs)
    ]  # fmt: skip


def measure_pace(
    model: HookedLVLM,
    items: Sequence[Item],
    decoding: Decoding,
    batch_size: int = 8,
    seconds: float = SECONDS,
) -> Pace:
    """Ask one batch of questions for one token and for nine, in turn, and once as it is asked.

    The batch is smaller where `seconds` would not be enough for it.

    Args:
        model: without hooks that are on.
        items: questions whose pictures can be read; the first ones are asked.
        decoding: prompt, suffix and length.
        batch_size: questions at most.
        seconds: that it may take.
    """
    decoding = decoding.settled(items)

    def ask(questions: Sequence[Item], n: int) -> None:
        _answers(model, questions, replace(decoding, max_new_tokens=n), n)

    ask(items[:1], 1)  # warms up
    start = time.perf_counter()
    ask(items[:1], 1)
    alone = max(time.perf_counter() - start, 1e-6)
    batch = items[: max(1, min(batch_size, int(seconds / (_PROMPTS * alone))))]
    rounds = interleaved(
        {"first": lambda: ask(batch, 1), "more": lambda: ask(batch, 1 + _TOKENS)},
        _ROUNDS,
        str(model.device),
    )
    first, more = (min(rounds[name]) for name in ("first", "more"))
    texts = [text for text, _ in _answers(model, batch, decoding, None)]
    tokenizer = model.processor.tokenizer
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]
    n, longest = len(batch), decoding.max_new_tokens or max(lengths)
    return Pace(
        first / n,
        max(0.0, more - first) / (_TOKENS * n),
        sum(min(length, longest) for length in lengths) / n,
        n,
    )


def _answers(
    model: HookedLVLM, items: Sequence[Item], decoding: Decoding, least: int | None
) -> list[tuple[str, float | None]]:
    texts = [decoding.question(item) for item in items]
    images = {item.image: item.load() for item in items}
    pictures = [images[item.image] for item in items]
    names = [item.image for item in items]
    return answer(model, _PLAIN, pictures, texts, names, decoding, least)
