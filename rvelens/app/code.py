"""What the tab Ask shows as Python that computes it again, and as a manifest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rvelens.app.asking import IMAGE_NAME, MAX_NEW_TOKENS, Column, Comparison
from rvelens.app.models import Choice, Models
from rvelens.app.programs import arguments, image_line, join_program, model_lines
from rvelens.app.settings import REGION
from rvelens.app.truth import truth_of
from rvelens.app.viewer import Focus
from rvelens.evaluate.answering import Decoding
from rvelens.evaluate.manifest import about_method, about_model, versions


def python_of(comparison: Comparison, view: Focus, models: Models, choice: Choice) -> str:
    """A program that prints the answers on the page and draws their figure.

    An uploaded picture is read from a file whose name the reader puts in.
    """
    truth = truth_of(comparison.image, comparison.question)
    layers = "" if view.layer is None else f", layers=[{view.layer}]"
    return join_program(
        [
            *model_lines(models, choice),
            image_line("make_questions", None if truth is None else truth.scene),
            f"question = {comparison.question!r}",
            "methods = {",
            *(f"    {column.name!r}: {_made(column)}," for column in comparison.columns),
            "}",
            f"decoding = Decoding(max_new_tokens={MAX_NEW_TOKENS})",
            f"trace = trace_methods(model, methods, image, question, decoding, {IMAGE_NAME!r})",
            "for answer in trace.answers:",
            "    print(answer.name, answer.text, answer.log_probs.exp())",
            "if trace.grid is not None:",
            f"    figure = token_overlays(trace{layers}, title=question)",
            '    save_figure(figure, "answers.pdf")',
        ]
    )


def _made(column: Column) -> str:
    """The call that makes a method, with all of its parameters as they were settled."""
    parameters = dict(column.method.parameters)
    if column.method.name == "vanilla":
        return 'make_method("vanilla", model)'
    if column.method.name == REGION:
        box = tuple(parameters["region"])
        settings = arguments(layers=parameters["layers"], beta=parameters["beta"])
        return f"region_method(model, model.image_grid(image), {box}, image.size, {settings})"
    profile = ["profile"] if parameters.pop("profile", None) else []
    settings = ", ".join([repr(column.method.name), "model", *profile, arguments(**parameters)])
    return f"make_method({settings})"


def manifest_of(comparison: Comparison, models: Models, choice: Choice) -> str:
    """JSON of everything that the answers depend on, and the answers.

    Computing the digest of the weights reads all of them; the caller holds the lock.
    """
    truth = truth_of(comparison.image, comparison.question)
    pixels = hashlib.sha256(comparison.image.convert("RGB").tobytes()).hexdigest()
    decoding = Decoding(max_new_tokens=MAX_NEW_TOKENS)
    return json.dumps(
        {
            "model": about_model(models.loaded(choice).model),
            "profile": None if choice.profile is None else choice.profile.digest(),
            "image": {
                "scene": None if truth is None else f"test {truth.scene}",
                "size": list(comparison.image.size),
                "sha256": pixels,
            },
            "question": comparison.question,
            "decoding": {
                "prompt": decoding.prompt,
                "max_new_tokens": MAX_NEW_TOKENS,
                "greedy": True,
            },
            "methods": {column.name: about_method(column.method) for column in comparison.columns},
            "answers": [_answer(column) for column in comparison.columns],
            "versions": versions(),
        },
        indent=1,
        ensure_ascii=False,
    )


def _answer(column: Column) -> dict[str, Any]:
    """One answer, with its tokens and the first token's probabilities."""
    traced = column.traced
    return {
        "name": column.name,
        "text": traced.text,
        "ids": traced.ids.tolist(),
        "pieces": list(traced.pieces),
        "log_probs": [round(x, 6) for x in traced.log_probs.tolist()],
        "yes": column.answer.yes,
        "no": column.answer.no,
    }
