"""One question, answered plainly and under methods, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rvelens.app.models import Loaded
from rvelens.app.settings import REGION
from rvelens.evaluate.answering import Decoding, answer_logits
from rvelens.evaluate.tracing import trace_methods
from rvelens.hooks import ars_caching_hooks, mask_recording_hooks
from rvelens.hooks.enhanced import Masks
from rvelens.interventions.methods import Method, make_method
from rvelens.interventions.region import parse_region, region_method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import image_formats, load_image
from rvelens.model.query_rows import query_rows
from rvelens.model.trace import Trace, TracedAnswer
from rvelens.model.yes_no import yes_no_probabilities
from rvelens.scores.maps import by_decoder_layer
from rvelens.studies.cases.pictures import TokensByLayer

MOST_PIXELS = 40_000_000
MAX_NEW_TOKENS = 32
PLAIN = "plain"
# VCD's noise follows from the name of the picture: the same for every file of the same pixels.
IMAGE_NAME = "picture"

# What a person wants beside the plain answer: the parameters of each method, by its name.
MethodParameters = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class YesNoAnswer:
    """An answer, with the first token's probabilities of yes and of no.

    Attributes:
        yes, no: None where the tokenizer has no single token for them.
    """

    text: str
    yes: float | None
    no: float | None


@dataclass(frozen=True, eq=False)
class Column:
    """One answer.

    Attributes:
        traced: the answer token by token.
        masks: what RVE enhanced and denoising removed at the first token, by layer; {} for other
            methods.
    """

    name: str
    method: Method
    answer: YesNoAnswer
    traced: TracedAnswer = field(repr=False)
    masks: TokensByLayer = field(repr=False)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answers to one question, the plain model's first.

    Attributes:
        parameters: those that each method was asked for with.
    """

    question: str
    trace: Trace
    columns: tuple[Column, ...]
    parameters: MethodParameters

    @property
    def image(self) -> Image.Image:
        """The picture, in RGB."""
        return self.trace.image


def readable_picture(path: str | Path | None) -> Image.Image | None:
    """The picture of a field; None where there is none that can be read."""
    try:
        return read_picture(path)
    except ValueError:
        return None


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
    parameters: MethodParameters,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Comparison:
    """Ask without and with methods; the caller holds the lock.

    Raises:
        ValueError: an empty question, or a setting that a method refuses.
    """
    question = question.strip()
    methods = {PLAIN: make_method("vanilla", loaded.model)}
    for name, settings in parameters.items():
        methods[name] = _made(loaded, image, name, settings)
    decoding = Decoding(max_new_tokens=max_new_tokens)
    trace = trace_methods(loaded.model, methods, image, question, decoding, IMAGE_NAME)
    columns = []
    for name, method in methods.items():
        (first,) = answered(loaded.model, method, [image], [question], 1)
        answer = YesNoAnswer(trace[name].text, first.yes, first.no)
        masks = _masks(loaded.model, method, image, question)
        columns.append(Column(name, method, answer, trace[name], masks))
    return Comparison(question, trace, tuple(columns), parameters)


def _made(loaded: Loaded, image: Image.Image, name: str, parameters: Mapping[str, Any]) -> Method:
    """A method for one picture.

    Raises:
        ValueError: a setting that the method refuses, or a region without a box or a patch grid.
    """
    if name != REGION:
        return make_method(name, loaded.model, loaded.profile, **parameters)
    settings = dict(parameters)
    box, grid = settings.pop("box", ""), loaded.model.image_grid(image)
    if not box:
        raise ValueError(
            "no box is given for the region: expected x0,y0,x1,y1 in pixels; draw one on a picture of "
            "an answer, or write it under Settings."
        )
    if grid is None:
        raise ValueError(
            f"the image tokens of {loaded.model.family.name} have no place in the picture: expected "
            "a model with a patch grid; choose another method."
        )
    return region_method(loaded.model, grid, parse_region(box, image.size), image.size, **settings)


def _masks(model: HookedLVLM, method: Method, image: Image.Image, question: str) -> TokensByLayer:
    """What RVE enhanced at the first token; other methods need no forward."""
    if method.name != "rve":
        return {}
    return tokens_by_layer(record_attention(model, method, [image], [question])[1])


def answered(
    model: HookedLVLM,
    method: Method,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[YesNoAnswer]:
    """Greedy answers under a method."""
    decoding = Decoding(max_new_tokens=max_new_tokens)
    names = [IMAGE_NAME] * len(questions)
    texts, first = answer_logits(model, method, images, questions, names, decoding)
    try:
        shares: list[list[Any]] = yes_no_probabilities(first, model.processor).tolist()
    except ValueError:  # the tokenizer has no single token for yes or for no
        shares = [[None, None]] * len(texts)
    return [YesNoAnswer(text, *share) for text, share in zip(texts, shares, strict=True)]


@torch.no_grad()
def record_attention(
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


def tokens_by_layer(masks: Mapping[int, Masks], sample: int = 0) -> TokensByLayer:
    """Numbers of the image tokens that each layer enhanced, and that denoising removed."""
    return {
        str(layer): {
            "enhanced": of_layer.target[sample].nonzero().flatten().tolist(),
            "removed": of_layer.removed[sample].nonzero().flatten().tolist(),
        }
        for layer, of_layer in sorted(masks.items())
    }
