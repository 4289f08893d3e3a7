"""Programs that compute again what a tab shows: their imports, their model, their picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rvelens.app.models import Choice, Models
from rvelens.app.shared import N_SCENES

# The name under which a program reads a picture that was uploaded.
_PICTURE = "picture.png"
# Public names that programs use, by the module that each is imported from.
_HOMES: Mapping[str, Sequence[str]] = {
    "rvelens": ("ARSProfile", "ContrastivePair", "score_heads"),
    "rvelens.benchmarks": ("load_benchmark",),
    "rvelens.benchmarks.action_scenes": ("contrastive_pairs", "make_questions"),
    "rvelens.evaluate": ("evaluate", "to_markdown"),
    "rvelens.evaluate.answering": ("Decoding", "answer"),
    "rvelens.evaluate.flips": ("FlipFilter", "flips", "matching"),
    "rvelens.evaluate.opened": ("open_run", "strict_scores"),
    "rvelens.evaluate.tracing": ("trace_methods",),
    "rvelens.hooks": ("head_mask_hooks",),
    "rvelens.interventions.methods": ("Method", "make_method"),
    "rvelens.interventions.profiles": ("find_profile",),
    "rvelens.interventions.region": ("region_method",),
    "rvelens.model.loading": ("load_model",),
    "rvelens.model.prompts": ("load_image",),
    "rvelens.plots": ("ars_heatmap", "save_figure", "token_overlays", "yes_ratio_points"),
}


def join_program(lines: Sequence[str]) -> str:
    """The lines, with the imports that they need in front."""
    body = "\n".join(lines)
    imports = []
    for module, names in _HOMES.items():
        used = [name for name in names if re.search(rf"(?<![\w.]){name}(\(|\.\w+\()", body)]
        imports += [f"from {module} import {', '.join(used)}"] if used else []
    return "\n".join([*imports, "", body, ""])


def model_lines(models: Models, choice: Choice) -> list[str]:
    """What gives `model`, and `profile` where the window has one."""
    loading = f"model = load_model({arguments(choice.name, **models.options())})"
    return [loading] if choice.profile is None else [loading, f"profile = {choice.code}"]


def image_line(maker: str, number: int | None) -> str:
    """What gives `image`.

    Args:
        maker: the function that makes drawn scenes, `make_questions` or `contrastive_pairs`.
        number: of the drawn scene; None for a picture whose file the reader puts in.
    """
    if number is None:
        return f"image = load_image({_PICTURE!r})  # the picture that you uploaded"
    return f'image = {maker}("test", {N_SCENES})[{number}].image'


def arguments(*positional: Any, **named: Any) -> str:
    """Arguments of a call as Python."""
    return ", ".join(
        [*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())]
    )
