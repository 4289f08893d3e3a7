"""Generation that records the probability of every token, and where every head looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from rvelens.files.wording import counted, kind_of_value
from rvelens.hooks.record import ars_caching_hooks
from rvelens.model.hook_root import Hooks
from rvelens.model.last_patterns import LastCall, deferrable_layers, patterns_of, watching
from rvelens.model.limits import check_length
from rvelens.model.prompts import ImageLike, load_image
from rvelens.model.trace import Trace, TracedAnswer
from rvelens.seam.arguments import ModelInputs
from rvelens.seam.call import Call


class _Steps(LogitsProcessor):
    """Stores what hooks and watches recorded in the forward of each step; runs before other processors.

    Contrastive decoding runs the forward of its second branch later; that record is overwritten.
    """

    def __init__(self) -> None:
        self.recorded: dict[int, Tensor] = {}  # by layer, of the forward in progress
        self.watched: Mapping[int, LastCall] = {}
        self.steps: list[dict[int, Tensor]] = []
        self.queries: list[dict[int, Tensor]] = []
        self.calls: dict[int, Call] = {}

    def __call__(
        self, input_ids: Int[Tensor, "1 key"], scores: Float[Tensor, "1 vocab"]
    ) -> Float[Tensor, "1 vocab"]:
        self.steps.append(dict(self.recorded))
        self.recorded.clear()
        self.queries.append(
            {
                n: last_call.query
                for n, last_call in self.watched.items()
                if last_call.query is not None
            }
        )
        self.calls = {
            n: last_call.call for n, last_call in self.watched.items() if last_call.call is not None
        }
        return scores


class _LogProbs(LogitsProcessor):
    """Stores the log-probability of each generated token; runs after all other processors."""

    def __init__(self) -> None:
        self.taken: list[Tensor] = []
        self._last: Tensor | None = None

    def __call__(
        self, input_ids: Int[Tensor, "1 key"], scores: Float[Tensor, "1 vocab"]
    ) -> Float[Tensor, "1 vocab"]:
        if self._last is not None:
            self.take(input_ids[0, -1])
        self._last = scores[0].float().log_softmax(dim=-1)
        return scores

    def take(self, token: Int[Tensor, ""]) -> None:
        """The token that the latest step has led to."""
        assert self._last is not None
        self.taken.append(self._last[token])


def trace(
    model: Any,  # a HookedLVLM, which imports this module
    image: ImageLike,
    question: str,
    settings: Mapping[str, Hooks] | None = None,
    *,
    max_new_tokens: int = 32,
    prompt: str = "chat",
) -> Trace:
    """`HookedLVLM.trace`."""
    check_traced(question, settings, bool(model.list_hooks()))
    loaded = load_image(image)
    inputs = model.prepare(loaded, question, prompt)
    if settings is None:
        settings = {"hooked" if model.list_hooks() else "plain": ()}
    answers = []
    for name, hooks in settings.items():
        with model.hooks(hooks):
            answers.append(traced_answer(model, inputs, name, max_new_tokens))
    grid = model.image_grid(loaded)
    return Trace(model.name, loaded, question, prompt, grid, tuple(answers))


def check_traced(question: Any, settings: Mapping[str, Any] | None, hooked: bool) -> None:
    """Raise ValueError for arguments that `trace` refuses, before anything is computed."""
    if not isinstance(question, str):
        raise ValueError(
            f"a question is {kind_of_value(question)}: expected one text; trace each by itself."
        )
    if settings is None:
        return
    if not settings:
        raise ValueError(
            'no settings to trace: expected at least one; pass {"plain": []}, or None.'
        )
    if hooked:
        raise ValueError(
            f"hooks are on, and settings are given ({', '.join(settings)}): expected one of the two, "
            "so that each answer is of its own hooks; take the hooks off, or pass no settings."
        )
    methods = [name for name, hooks in settings.items() if hasattr(hooks, "query_rows")]
    if methods:
        raise ValueError(
            f"the setting {methods[0]!r} is a method: expected a list of hooks; call "
            "rvelens.evaluate.tracing.trace_methods for methods."
        )


@torch.no_grad()
def traced_answer(
    model: Any,  # a HookedLVLM, which imports this module
    inputs: ModelInputs,
    name: str,
    max_new_tokens: int,
    processors: Sequence[LogitsProcessor] = (),
) -> TracedAnswer:
    """A greedy answer with the active hooks, and a record of every token.

    Args:
        model: the hooked model.
        inputs: one prompt, from `model.prepare`.
        name: the name of the answer.
        max_new_tokens: tokens to generate at most.
        processors: logits processors, such as a `ContrastProcessor`.

    Raises:
        ValueError: a batch of several prompts, or no token to generate.
    """
    if len(inputs["input_ids"]) != 1:
        raise ValueError(
            f"{counted(len(inputs['input_ids']), 'prompt')} to trace: expected one; trace "
            "each by itself."
        )
    if max_new_tokens < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens}: expected at least 1; pass a larger number."
        )
    check_length(model.hf_model.config, inputs, max_new_tokens)
    steps, log_probs = _Steps(), _LogProbs()
    later = deferrable_layers(model)
    recorders = ars_caching_hooks(
        [n for n in model.attention_layers if n not in later], steps.recorded
    )
    recording = model.hooks(recorders) if recorders else nullcontext()
    with recording, watching(model, later) as steps.watched:
        output = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([steps, *processors, log_probs]),
            disable_compile=True,  # a compiled step would hand out tensors that the next one reuses
        )
    assert isinstance(output, Tensor)
    ids = output[0, -len(steps.steps) :]
    log_probs.take(ids[-1])
    return TracedAnswer(
        name,
        model.decode(output, inputs["input_ids"])[0],
        ids.cpu(),
        pieces_of(model.processor, ids),
        torch.stack(log_probs.taken).cpu(),
        _by_step(model, steps, model.token_map(inputs).image[0]),
    )


def _by_step(
    model: Any, steps: _Steps, image: Bool[Tensor, " prompt"]
) -> Float[Tensor, "token layer head image"]:
    """What was recorded, in one tensor; a layer's steps move off its device together."""
    patterns = patterns_of(steps.calls, steps.queries, image)
    for layer in steps.steps[0]:
        patterns[layer] = torch.cat([step[layer] for step in steps.steps]).cpu()
    every = torch.zeros(len(steps.steps), model.n_layers, *next(iter(patterns.values())).shape[1:])
    for layer, rows in patterns.items():
        every[:, layer] = rows
    return every


def pieces_of(processor: Any, ids: Int[Tensor, " token"]) -> tuple[str, ...]:
    """The text that each token adds; "" if a character needs more tokens."""
    pieces, before = [], ""
    for n in range(1, len(ids) + 1):
        text = processor.batch_decode(ids[None, :n], skip_special_tokens=False)[0]
        whole = before if text.endswith("\ufffd") and n < len(ids) else text
        pieces.append(whole[_n_shared(before, whole) :])
        before = whole
    return tuple(pieces)


def _n_shared(first: str, second: str) -> int:
    """Letters that two texts begin with alike."""
    differ = (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differ, min(len(first), len(second)))
