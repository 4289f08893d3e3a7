"""One question, answered plainly and under a method, and what the method did to the attention."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rvelens.app.models import Loaded
from rvelens.evaluate.answering import Decoding, answer_logits
from rvelens.hooks import ars_caching_hooks, mask_recording_hooks
from rvelens.hooks.enhanced import Masks
from rvelens.interventions.methods import METHODS, Method, make_method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import image_formats, load_image
from rvelens.model.query_rows import query_rows
from rvelens.model.yes_no import yes_no_probabilities
from rvelens.scores.maps import by_decoder_layer
from rvelens.studies.cases.pictures import Layers
from rvelens.tokens.grid import ImageGrid

MOST_PIXELS = 40_000_000
MAX_NEW_TOKENS = 32
_NUMBERS: Mapping[str, Callable[[Any], float | int]] = {"real": float, "whole": int}


@dataclass(frozen=True)
class Said:
    """An answer, with the first token's probabilities of yes and of no.

    Attributes:
        yes, no: None where the tokenizer has no single token for them.
    """

    text: str
    yes: float | None
    no: float | None


@dataclass(frozen=True, eq=False)
class Asked:
    """Both answers to one question, and the attention of the prompt's last token.

    Attributes:
        grid: where the image tokens lie; None in families without a patch grid.
        masks: what RVE enhanced and denoising removed, by layer; {} for other methods.
        before, after: post-softmax attention of the last token to each image token, over all keys
            of the prompt (not renormalised over the image), without and with the method's hooks.
    """

    question: str
    image: Image.Image
    grid: ImageGrid | None
    method: Method
    plain: Said
    steered: Said
    masks: Layers
    before: Float[Tensor, "layer head image"] = field(repr=False)
    after: Float[Tensor, "layer head image"] = field(repr=False)


@dataclass(frozen=True)
class Setting:
    """A parameter of a method, as a form shows it.

    Attributes:
        kind: "text", "switch", "real" or "whole" number, or "choice".
        default: None where the model or its family decides.
    """

    name: str
    kind: str
    default: Any


def settings_of(method: str) -> list[Setting]:
    """The parameters of a method, in their order."""
    hints = typing.get_type_hints(METHODS[method])
    return [
        Setting(name, _kind(name, hints[name]), parameter.default)
        for name, parameter in inspect.signature(METHODS[method]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def _kind(name: str, hint: Any) -> str:
    kinds = set(typing.get_args(hint)) or {hint}
    if name == "scope":
        return "choice"
    if str in kinds:
        return "text"
    if bool in kinds:
        return "switch"
    return "whole" if int in kinds else "real"


def given(settings: Sequence[Setting], values: Sequence[Any]) -> dict[str, Any]:
    """A form's values as a method's parameters; empty fields are left to their defaults.

    Raises:
        ValueError: what should be a number is none.
    """
    found: dict[str, Any] = {}
    for setting, value in zip(settings, values, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        found[setting.name] = _number(setting, value) if setting.kind in _NUMBERS else value
    return found


def _number(setting: Setting, value: Any) -> float | int:
    try:
        return _NUMBERS[setting.kind](value)
    except ValueError as error:
        raise ValueError(
            f"{setting.name}={value!r}: expected a {setting.kind} number; correct it, or "
            "leave it empty."
        ) from error


def read_picture(path: str | Path | None) -> Image.Image:
    """A picture as a person gave it, upright and in RGB.

    Raises:
        ValueError: none was given, it has too many pixels, or it cannot be read.
    """
    if not path:
        raise ValueError("no image is given: expected an image; drop a file or choose a scene.")
    try:
        with Image.open(path, formats=image_formats()) as opened:
            width, height = opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return load_image(path)  # says why
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"the picture has {width * height / 1e6:.1f} megapixels: expected at most "
            f"{MOST_PIXELS / 1e6:.0f}; make it smaller."
        )
    return load_image(path)


def ask(
    loaded: Loaded,
    image: Image.Image,
    question: str,
    method: str,
    parameters: Mapping[str, Any],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Asked:
    """Ask without and with a method; the caller holds the lock.

    Raises:
        ValueError: an empty question, or a setting that the method refuses.
    """
    made = make_method(method, loaded.model, loaded.profile, **parameters)
    plain = make_method("vanilla", loaded.model)
    (said,), (steered,) = (
        answered(loaded.model, m, [image], [question], max_new_tokens) for m in (plain, made)
    )
    before, _ = look(loaded.model, plain, [image], [question])
    after, masks = look(loaded.model, made, [image], [question])
    grid = loaded.model.image_grid(image)
    return Asked(
        question, image, grid, made, said, steered, tokens_by_layer(masks), before[0], after[0]
    )


def answered(
    model: HookedLVLM,
    method: Method,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Said]:
    """Greedy answers under a method."""
    decoding = Decoding(max_new_tokens=max_new_tokens)
    names = ["picture"] * len(questions)  # VCD's noise follows from it
    texts, first = answer_logits(model, method, images, questions, names, decoding)
    try:
        shares: list[list[Any]] = yes_no_probabilities(first, model.processor).tolist()
    except ValueError:  # the tokenizer has no single token for yes or for no
        shares = [[None, None]] * len(texts)
    return [Said(text, *share) for text, share in zip(texts, shares, strict=True)]


@torch.no_grad()
def look(
    model: HookedLVLM,
    method: Method,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    prompt: str = "chat",
) -> tuple[Float[Tensor, "batch layer head image"], dict[int, Masks]]:
    """Attention of each prompt's last token to its image under a method, and RVE's masks."""
    masks: dict[int, Masks] = {}
    attention: dict[int, Tensor] = {}
    hooks = [
        *mask_recording_hooks(method.hooks, masks),
        *ars_caching_hooks(model.attention_layers, attention),
    ]
    inputs = model.prepare(list(images), list(questions), prompt)
    with query_rows(model, method.query_rows), model.hooks(hooks):
        model(**inputs, logits_to_keep=1)
    layers = [attention[layer].cpu() for layer in model.attention_layers]
    return by_decoder_layer(model, torch.stack(layers, dim=1)), masks


def tokens_by_layer(masks: Mapping[int, Masks], sample: int = 0) -> Layers:
    """Numbers of the image tokens that each layer enhanced, and that denoising removed."""
    return {
        str(layer): {
            "enhanced": found.target[sample].nonzero().flatten().tolist(),
            "removed": found.removed[sample].nonzero().flatten().tolist(),
        }
        for layer, found in sorted(masks.items())
    }
