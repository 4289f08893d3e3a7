"""Traces of answers with methods, including those with a second branch."""

from __future__ import annotations

from collections.abc import Mapping

from rvelens.evaluate.answering import Decoding, contrast_of
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import ImageLike, load_image
from rvelens.model.query_rows import query_rows
from rvelens.model.trace import Trace
from rvelens.model.tracing import check_traced, traced_answer


def trace_methods(
    model: HookedLVLM,
    methods: Mapping[str, Method],
    image: ImageLike,
    question: str,
    decoding: Decoding | None = None,
    image_name: str | None = None,
) -> Trace:
    """The answers with several methods token by token, as `HookedLVLM.trace` does for hooks.

    The attention is that of the first branch, not of the branch that is subtracted.

    Args:
        model: the hooked model, without active hooks.
        methods: methods from `make_method`, by the name of each answer.
        image: a path or PIL image.
        question: one question.
        decoding: prompt, suffix, length (32 tokens by default) and seed.
        image_name: name of the image, which determines VCD's noise; by default a digest of its pixels.

    Raises:
        ValueError: no methods, active hooks, or an error of `HookedLVLM.prepare`.
    """
    decoding = decoding or Decoding()
    if not methods:
        raise ValueError("no methods to trace: expected at least one; pass one of make_method.")
    check_traced(question, dict.fromkeys(methods, ()), bool(model.list_hooks()))
    loaded = load_image(image)
    full_question = f"{question} {decoding.suffix}".strip()
    inputs = model.prepare(loaded, full_question, decoding.prompt)
    names = None if image_name is None else [image_name]
    answers = []
    for name, method in methods.items():
        contrast = contrast_of(model, method, [loaded], [full_question], names, decoding, inputs)
        processors = [] if contrast is None else [contrast]
        with query_rows(model, method.query_rows), model.hooks(method.hooks):
            length = decoding.max_new_tokens or 32
            answers.append(traced_answer(model, inputs, name, length, processors))
    grid = model.image_grid(loaded)
    return Trace(model.name, loaded, full_question, decoding.prompt, grid, tuple(answers))
