"""What is on the page as Python that computes it again, and as a manifest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rvelens.app.asking import IMAGE_NAME, MAX_NEW_TOKENS, Column, Comparison
from rvelens.app.models import Choice, Models
from rvelens.app.settings import REGION
from rvelens.app.shared import N_SCENES
from rvelens.app.truth import truth_of
from rvelens.app.viewer import Focus
from rvelens.evaluate.answering import Decoding
from rvelens.evaluate.manifest import about_method, about_model, versions

# The name under which code reads a picture that was uploaded.
_PICTURE = "picture.png"


def python_of(comparison: Comparison, view: Focus, models: Models, choice: Choice) -> str:
    """A program that prints the answers on the page and draws their figure.

    An uploaded picture is read from a file whose name the reader puts in.
    """
    truth = truth_of(comparison.image, comparison.question)
    regions = any(column.method.name == REGION for column in comparison.columns)
    lines = [
        *_imports(truth is not None, regions, choice.code),
        "",
        f"model = load_model({_arguments(choice.name, **models.options())})",
    ]
    if choice.profile is not None:
        lines.append(f"profile = {choice.code}")
    if truth is None:
        lines.append(f"image = load_image({_PICTURE!r})  # the picture that you uploaded")
    else:
        lines.append(f'image = make_questions("test", {N_SCENES})[{truth.scene}].image')
    layers = "" if view.layer is None else f", layers=[{view.layer}]"
    return "\n".join(
        [
            *lines,
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
            "",
        ]
    )


def _imports(drawn: bool, regions: bool, profile: str) -> list[str]:
    """The imports that the program needs, in their order."""
    benchmark = [name for name in ("contrastive_pairs",) if f"{name}(" in profile]
    benchmark += ["make_questions"] * drawn
    names = [
        ("rvelens", [name for name in ("ARSProfile", "score_heads") if name in profile]),
        ("rvelens.benchmarks.action_scenes", benchmark),
        ("rvelens.evaluate.answering", ["Decoding"]),
        ("rvelens.evaluate.tracing", ["trace_methods"]),
        ("rvelens.interventions.methods", ["make_method"]),
        ("rvelens.interventions.profiles", ["find_profile"] * ("find_profile(" in profile)),
        ("rvelens.interventions.region", ["region_method"] * regions),
        ("rvelens.model.loading", ["load_model"]),
        ("rvelens.model.prompts", ["load_image"] * (not drawn)),
        ("rvelens.plots", ["save_figure", "token_overlays"]),
    ]
    return [f"from {module} import {', '.join(imported)}" for module, imported in names if imported]


def _made(column: Column) -> str:
    """The call that makes a method, with all of its parameters as they were settled."""
    parameters = dict(column.method.parameters)
    if column.method.name == "vanilla":
        return 'make_method("vanilla", model)'
    if column.method.name == REGION:
        box = tuple(parameters["region"])
        settings = _arguments(layers=parameters["layers"], beta=parameters["beta"])
        return f"region_method(model, model.image_grid(image), {box}, image.size, {settings})"
    profile = ["profile"] if parameters.pop("profile", None) else []
    settings = ", ".join([repr(column.method.name), "model", *profile, _arguments(**parameters)])
    return f"make_method({settings})"


def _arguments(*positional: Any, **named: Any) -> str:
    return ", ".join(
        [*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())]
    )


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
