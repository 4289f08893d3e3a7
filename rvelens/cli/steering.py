"""What `rvelens ask` does with a method: answers under it, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rvelens.evaluate.answering import Decoding, answer_logits
from rvelens.heads.layers import parse_layers
from rvelens.hooks import mask_recording_hooks
from rvelens.hooks.enhanced import Masks
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.yes_no import yes_no_probabilities
from rvelens.tokens.grid import ImageGrid


def same_wording(decoding: Decoding, wording: Mapping[str, Any]) -> Decoding:
    """How an intervention's answers are generated; only their length may be another.

    Raises:
        ValueError: another prompt or suffix.
    """
    for name in ("prompt", "suffix"):
        stored = getattr(decoding, name)
        if wording.get(name, stored) != stored:
            raise ValueError(
                f"--{name} {wording[name]!r} with a manifest made with {stored!r}: expected the same; "
                "leave it out, or leave out --manifest."
            )
    length = wording.get("max_new_tokens") or decoding.max_new_tokens or 16
    return replace(decoding, max_new_tokens=length)


def worded(question: str, decoding: Decoding) -> str:
    """The question with its suffix; an empty one stays empty, to be refused."""
    return f"{question} {decoding.suffix}" if decoding.suffix and question.strip() else question


def answer_question(
    model: HookedLVLM, method: Method, image: Path, question: str, decoding: Decoding
) -> dict[str, Any]:
    """The greedy answer under a method and the first token's probabilities of yes and no."""
    full_question = worded(question, decoding)
    # VCD's noise follows from the name of the picture.
    (text,), logits = answer_logits(model, method, [image], [full_question], ["picture"], decoding)
    try:
        yes, no = yes_no_probabilities(logits, model.processor)[0].tolist()
    except ValueError:  # The tokenizer has no single token for yes or no.
        yes = no = None
    return {"answer": text, "yes": yes, "no": no}


@torch.no_grad()
def draw(
    model: HookedLVLM,
    method: Method,
    image: Path,
    question: str,
    decoding: Decoding,
    grid: ImageGrid,
    path: Path,
) -> None:
    """The image tokens that a method enhanced at the prompt, to a file."""
    from rvelens.plots import overlay_enhanced, save_figure

    masks: dict[int, Masks] = {}
    inputs = model.prepare(image, worded(question, decoding), decoding.prompt)
    with model.hooks(mask_recording_hooks(method.hooks, masks)):
        model(**inputs, logits_to_keep=1)
    for layer, hook in _regions(method, model.n_layers):
        masks[layer] = Masks(hook.region, torch.zeros_like(hook.region), hook.region)
    save_figure(overlay_enhanced(image, masks, grid, title=question), path)


def _regions(method: Method, n_layers: int) -> list[tuple[int, Any]]:
    """The hooks of a region, by layer."""
    if method.name != "region":
        return []
    layers = parse_layers(method.parameters["layers"], None, n_layers)
    return [(layer, hook) for layer, (_, hook) in zip(layers, method.hooks, strict=True)]
