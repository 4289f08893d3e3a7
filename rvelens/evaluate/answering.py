"""Answers questions with a method."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList

from rvelens.benchmarks import Item
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import one_line
from rvelens.interventions import ContrastProcessor, icd_negative, text_negative, vcd_negative
from rvelens.interventions.icd import disturbed_prompt
from rvelens.interventions.method import naming
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.limits import check_length
from rvelens.model.prefix import can_share, identity, prepare_shared
from rvelens.model.prompts import ImageLike, load_image
from rvelens.model.query_rows import query_rows
from rvelens.model.replay import MOST_SETTINGS, Hooks, can_replay, prefill, replays_exactly
from rvelens.model.side_by_side import edits_last_row
from rvelens.model.yes_no import yes_margin

Value = TypeVar("Value")


@refuse_wrong_types
@dataclass(frozen=True)
class Decoding:
    """How answers are generated, the same for every method; always greedy.

    Attributes:
        prompt: a preset of the family, or a template.
        suffix: text after each question of a benchmark, after a space, such as "Please answer this
            question with one word.". Without it, official rules may read few answers.
        max_new_tokens: the maximum number of tokens; None means 16, or 64 for open-ended questions.
        seed: the seed of noise, for methods that add noise (VCD).
    """

    prompt: str = "chat"
    suffix: str = ""
    max_new_tokens: int | None = None
    seed: int = 55

    def settled(self, items: Sequence[Item]) -> Decoding:
        """The same, with the maximum length for these questions."""
        short = any(item.truth is not None for item in items)
        return replace(self, max_new_tokens=self.max_new_tokens or (16 if short else 64))

    def question(self, item: Item) -> str:
        """The text of the question for an item, with the suffix."""
        return f"{item.text} {self.suffix}".strip()


@dataclass(frozen=True)
class Answer:
    """The model's answer to one question, or why it could not be asked.

    Attributes:
        id: the id of the question.
        text: the generated text; None if it could not be asked.
        margin: log-odds of yes over no at the first token, under the method, but before the cutoff of a
            contrast; None if the tokenizer has no single tokens for yes and no.
        error: one sentence why it could not be asked; None if it was asked.
        files: SHA-256 of the picture's files, as stored in a run; None if unknown.
    """

    id: str
    text: str | None = None
    margin: float | None = None
    error: str | None = None
    files: str | None = field(default=None, compare=False, repr=False)


@refuse_wrong_types
def answer(
    model: HookedLVLM,
    method: Method,
    images: Sequence[ImageLike],
    questions: Sequence[str],
    names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    min_new_tokens: int | None = None,
) -> list[tuple[str, float | None]]:
    """Greedy answers to one batch of questions with a method.

    Questions with the same image object share its prefix, in families where this is exact.

    Args:
        model: the hooked model, without active hooks.
        method: from `rvelens.interventions.methods.make_method`.
        images: one for each question; the same object for the same image.
        questions: one question for each image.
        names: names of the images, which determine VCD's noise; by default the path of an image, or a
            digest of its pixels.
        decoding: prompt, length and seed.
        min_new_tokens: the minimum number of tokens, to time answers of equal length; None if the model
            decides.

    Returns:
        for each question the text of the answer, and the log-odds of yes over no at the first token.
    """
    texts, first = answer_logits(model, method, images, questions, names, decoding, min_new_tokens)
    return list(zip(texts, _margins(first, model), strict=True))


def answer_logits(
    model: HookedLVLM,
    method: Method,
    images: Sequence[ImageLike],
    questions: Sequence[str],
    names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    min_new_tokens: int | None = None,
) -> tuple[list[str], Float[Tensor, "question vocab"]]:
    """Texts as in `answer`, and logits of the first token under the method, before a cutoff."""
    if method.of_question is not None:
        raise ValueError(
            f"method {method.name!r} depends on the question: expected questions with all that is "
            "known of them; ask through rvelens.evaluate.evaluate, or pass "
            "method.for_question(model, item)."
        )
    decoding = decoding or Decoding()
    images, questions = list(images), list(questions)
    inputs = _prepared(model, images, questions, decoding.prompt, method.hooks)
    n_new = decoding.max_new_tokens or 16
    check_length(model.hf_model.config, inputs, n_new)
    contrast = contrast_of(model, method, images, questions, names, decoding, inputs)
    with query_rows(model, method.query_rows), model.hooks(method.hooks):
        least: dict[str, Any] = {} if min_new_tokens is None else {"min_new_tokens": min_new_tokens}
        output: Any = model.generate(
            **inputs,
            **least,
            do_sample=False,
            max_new_tokens=n_new,
            logits_processor=LogitsProcessorList([] if contrast is None else [contrast]),
            output_scores=True,
            return_dict_in_generate=True,
        )
    texts = model.decode(output["sequences"], inputs["input_ids"])
    first: Any = output["scores"][0] if contrast is None else contrast.first
    return texts, first


def contrast_of(
    model: HookedLVLM,
    method: Method,
    images: Sequence[ImageLike],
    questions: Sequence[str],
    names: Sequence[str] | None,
    decoding: Decoding,
    inputs: Any,
) -> ContrastProcessor | None:
    """The logits processor of a generation with a method; None if it has no second branch.

    Args:
        model, method, images, questions, names, decoding: as in `answer`.
        inputs: the inputs of the first branch, from `prepare` or `prepare_shared`.

    Raises:
        ValueError: a second branch longer than the model's positions.
    """
    if method.contrast is None:
        return None
    negative = _negative(model, method, list(images), list(questions), names, decoding, inputs)
    check_length(model.hf_model.config, negative, decoding.max_new_tokens or 16)
    return ContrastProcessor(model, negative, method.contrast.alpha, method.contrast.beta)


def _prepared(
    model: HookedLVLM, images: list[ImageLike], questions: list[str], prompt: str, hooks: Hooks
) -> Any:
    """The batch, behind shared prefixes where that is exact under these hooks.

    A shared prefix has padding behind the image, and runs without hooks. Hooks that may notice either
    get whole prompts.
    """
    local = edits_last_row(model, hooks)
    prepare = prepare_shared if local and can_share(model, prompt) else HookedLVLM.prepare
    return prepare(model, images, questions, prompt)


def _negative(
    model: HookedLVLM,
    method: Method,
    images: list[ImageLike],
    questions: list[str],
    names: Sequence[str] | None,
    decoding: Decoding,
    inputs: Any,
) -> dict[str, Any]:
    """Inputs of the second branch; it shares prefixes as the first one does."""
    contrast, prompt = method.contrast, decoding.prompt
    assert contrast is not None
    shares = "past_key_values" in inputs
    if contrast.kind == "text":
        return text_negative(inputs, model.image_token_id)
    if contrast.kind == "icd":
        disturbance = contrast.disturbance or ""
        if shares:
            disturbed = disturbed_prompt(model, prompt, disturbance)
            return prepare_shared(model, images, questions, disturbed)
        return icd_negative(model, images, questions, prompt, disturbance)

    called = [_image_name(image) for image in images] if names is None else list(names)

    def diffuse(first: Any, of: Sequence[str]) -> dict[str, Any]:
        n_image = model.token_map(first).n_image
        return vcd_negative(first, of, contrast.step or 500, decoding.seed, n_image)

    if not shares:
        return diffuse(inputs, called)
    return prepare_shared(
        model, images, questions, prompt,
        lambda first, samples: diffuse(first, [called[n] for n in samples]),
    )  # fmt: skip


def _image_name(image: ImageLike) -> str:
    """The same for the same picture, in any batch and order."""
    if isinstance(image, str | Path):
        return str(image)
    image = image if isinstance(image, Image.Image) else load_image(image)
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def _margins(logits: Float[Tensor, "rows vocab"], model: HookedLVLM) -> list[float | None]:
    try:
        margins = yes_margin(logits, model.processor).tolist()
    except ValueError:  # the tokenizer has no single token for yes or for no
        return [None] * len(logits)
    return [margin if math.isfinite(margin) else None for margin in margins]


# -- items of a benchmark --------------------------------------------------------------------------


def batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Items in batches of at most `size`, with questions about the same image together.

    They depend only on the items and the size, so a resumed or sharded run has the same batches.
    """
    by_image: dict[str, list[Item]] = {}
    for item in items:
        by_image.setdefault(item.image, []).append(item)
    chunks: list[list[Item]] = [[]]
    for group in by_image.values():
        for start in range(0, len(group), size):
            piece = group[start : start + size]
            if chunks[-1] and len(chunks[-1]) + len(piece) > size:
                chunks.append([])
            chunks[-1] += piece
    return [batch for batch in chunks if batch]


def side_by_side(model: HookedLVLM, methods: Sequence[Method]) -> list[list[Method]]:
    """Groups of methods to answer together: one group for all methods that a replay can run.

    Their settings share one prefill (`rvelens.model.replay`), if the model allows it.
    """
    together = [
        m
        for m in methods
        if m.contrast is None
        and m.of_question is None
        and m.query_rows == "last"
        and can_replay(model, m.hooks)
    ]
    if len(together) < 2 or not replays_exactly(model):
        return [[method] for method in methods]
    return [together, *([m] for m in methods if m not in together)]


def answer_each(
    model: HookedLVLM,
    settings: Sequence[Hooks],
    images: Sequence[ImageLike],
    questions: Sequence[str],
    decoding: Decoding | None = None,
) -> list[list[tuple[str, float | None]]]:
    """Greedy answers to a batch of questions under many settings, at little more than the cost of one.

    If hooks edit only the last row, they equal those of `answer` under each setting, up to rounding. If
    some setting hooks a layer, that layer computes the last row in float32 for all settings, also for
    the plain model. So with 16-bit weights, the plain model rounds like the settings that it is
    compared with.

    Args:
        model: the hooked model, without active hooks, of a family that `replays`.
        settings: the hooks of each setting; [] is the plain model.
        images, questions, decoding: as in `answer`.

    Returns:
        for each question and each setting, text and log-odds as in `answer`.
    """
    decoding = decoding or Decoding()
    images, questions = list(images), list(questions)
    hooks = [hook for setting in settings for hook in setting]
    if len({identity(image) for image in images}) < len(images):
        inputs = _prepared(model, images, questions, decoding.prompt, hooks)
    else:  # nothing to share before the image: one forward for all of the prompts
        inputs = model.prepare(images, questions, decoding.prompt)
    check_length(model.hf_model.config, inputs, decoding.max_new_tokens or 16)
    prefix = prefill(model, inputs)
    answers: list[list[tuple[str, float | None]]] = [[] for _ in questions]
    for start in range(0, len(settings), MOST_SETTINGS):
        group = settings[start : start + MOST_SETTINGS]
        ids, first = prefix.generate_each(group, decoding.max_new_tokens or 16)
        texts = model.processor.batch_decode(ids.flatten(0, 1), skip_special_tokens=True)
        margins = _margins(first.flatten(0, 1), model)
        for n, of_question in enumerate(answers):
            row = slice(n * len(group), (n + 1) * len(group))
            of_question += zip((text.strip() for text in texts[row]), margins[row], strict=True)
    return answers


def answer_items(
    model: HookedLVLM, methods: Sequence[Method], items: Sequence[Item], decoding: Decoding
) -> list[list[Answer]]:
    """Answers to a batch of items, each with every method of a group of `side_by_side`.

    If an item cannot be asked, because of its image, its text or lack of memory, its answer has an
    error. If memory runs out on several items, the error is raised, for `backing_off`. A method whose
    hooks depend on the question runs one item at a time.
    """
    if methods[0].of_question is not None:
        return [_answer_by_itself(model, methods[0], item, decoding) for item in items]
    images, errors = load_pictures(items)
    readable = [item for item in items if item.image in images]
    by_id: dict[str, list[tuple[str, float | None]]] = {}
    if readable:
        pictures = [images[item.image] for item in readable]
        texts = [decoding.question(item) for item in readable]
        names = [item.image for item in readable]
        try:
            with _naming_own(methods, readable):
                if len(methods) > 1:
                    settings = [method.hooks for method in methods]
                    answers = answer_each(model, settings, pictures, texts, decoding)
                else:
                    pairs = answer(model, methods[0], pictures, texts, names, decoding)
                    answers = [[pair] for pair in pairs]
            by_id = dict(zip([item.id for item in readable], answers, strict=True))
        except (ValueError, RuntimeError, MemoryError) as error:
            full = is_out_of_memory(error)
            if not full and not isinstance(error, ValueError):
                raise
            if full and len(items) > 1:
                raise
            if len(items) > 1:  # one question that cannot be asked must not lose the others
                rows = [answer_items(model, methods, [item], decoding) for item in items]
                return [row for (row,) in rows]
            errors[items[0].image] = reason_of(error)
    return [
        [Answer(item.id, *pair) for pair in by_id[item.id]]
        if item.id in by_id
        else [Answer(item.id, error=errors[item.image])] * len(methods)
        for item in items
    ]


def _naming_own(methods: Sequence[Method], items: Sequence[Item]) -> AbstractContextManager[None]:
    """Name the methods whose hooks are not of this package in an error, which these may have raised."""
    own = [method.name for method in methods if any(map(_is_own_hook, method.hooks))]
    return naming(", ".join(own), [item.id for item in items]) if own else nullcontext()


def _is_own_hook(pair: tuple[Any, Any]) -> bool:
    function = getattr(pair[1], "func", pair[1])  # of a partial
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.partition(".")[0] != "rvelens"


def _answer_by_itself(
    model: HookedLVLM, method: Method, item: Item, decoding: Decoding
) -> list[Answer]:
    """The answer to one item under the hooks that its question gets."""
    try:
        method = method.for_question(model, item)
    except (ValueError, OSError) as error:
        return [Answer(item.id, error=reason_of(error))]
    (answers,) = answer_items(model, [method], [item], decoding)
    return answers


def load_pictures(items: Sequence[Item]) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """The picture of each item by its name, read once; or the reason why it cannot be read."""
    images: dict[str, Image.Image] = {}
    errors: dict[str, str] = {}
    for item in items:
        if item.image not in images and item.image not in errors:
            try:
                images[item.image] = item.load()
            except (ValueError, OSError, MemoryError) as error:
                errors[item.image] = reason_of(error)
    return images, errors


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU or of the CPU ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


def reason_of(error: BaseException) -> str:
    """The reason why a question could not be asked, on one line."""
    if is_out_of_memory(error):
        return "there is not enough memory for this question alone"
    return one_line(error)


def backing_off(
    run: Callable[[Sequence[Item]], list[Value]], items: Sequence[Item], size: int
) -> tuple[list[Value], int]:
    """Run items in pieces of `size`, which is halved whenever memory runs out.

    Returns:
        a value for each item, such as its answers, and the size that fits into memory.
    """
    answers: list[Value] = []
    while len(answers) < len(items):
        piece = items[len(answers) : len(answers) + size]
        try:
            answers += run(piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(piece) == 1:
                raise
            size = len(piece) // 2
            clear_device_cache()
    return answers, size
