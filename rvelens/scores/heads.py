"""Computes a head profile from contrastive pairs, with any score."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import kind_of_value
from rvelens.heads.pair import ContrastivePair, check_pair
from rvelens.heads.profile import ARSProfile
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import ImageLike, load_image
from rvelens.model.weights import dtype_name, weights_digest
from rvelens.scores.effects import gradient, patching
from rvelens.scores.maps import (
    ars,
    ars_as_published,
    by_decoder_layer,
    difference,
    mass_weighted,
    of_maps,
    renormalised,
)

PerPair = Float[Tensor, "pair layer head"]


@dataclass(frozen=True)
class Score:
    """A way to score heads.

    Attributes:
        name: the name for `rvelens scan --score NAME`.
        about: its definition in one line.
        source: the paper or code that it comes from.
        of_pairs: a function of model, batch of pairs and prompt. It returns the score of every head on
            each pair. A profile holds the mean over pairs, and heads with a larger mean rank higher.
    """

    name: str
    about: str
    source: str
    of_pairs: Callable[[HookedLVLM, Sequence[ContrastivePair], str], PerPair]


def chance(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> PerPair:
    """Uniform random numbers, the same for the same pair: the baseline for every score."""

    def numbers(pair: ContrastivePair) -> Float[Tensor, "layer head"]:
        seed = hashlib.sha256(f"{pair.id}\t{pair.question}\t{pair.contrastive}".encode()).digest()
        drawn = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big", signed=True))
        return torch.rand(model.n_layers, model.n_heads, generator=drawn)

    layers = list(model.attention_layers)
    return by_decoder_layer(model, torch.stack([numbers(pair) for pair in pairs])[:, layers])


_PUBLISHED = "ars-as-published"
# By the names that `rvelens scan --score` takes.
SCORES = {
    score.name: score
    for score in (
        Score("ars", "||A - A'|| / mean(||A||, ||A'||)", "the paper, equation 3", of_maps(ars)),
        Score(
            _PUBLISHED,
            "equation 3 of maps rounded to float16, with 1e-8 added below",
            "the authors' code",
            of_maps(ars_as_published),
        ),
        Score("difference", "||A - A'||", "equation 3 without its normaliser", of_maps(difference)),
        Score(
            "ars-renormalised",
            "equation 3 on maps that sum to 1 over the image",
            "this project",
            of_maps(renormalised),
        ),
        Score(
            "mass-weighted",
            "equation 3 times the image's attention",
            "this project",
            of_maps(mass_weighted),
        ),
        Score(
            "gradient",
            "sum over image tokens of |d(log-odds of yes) / d(pre-softmax score)|",
            "saliency, Simonyan et al. 2014, of attention scores",
            gradient,
        ),
        Score(
            "patching",
            "|change of the log-odds of yes| with the head's output under the contrastive text",
            "activation patching, Vig et al. 2020",
            patching,
        ),
        Score("random", "uniform random numbers", "a control", chance),
    )
}
# What the study of head scores compares: ARS as published differs from ARS by its rounding alone.
COMPARED = tuple(name for name in SCORES if name != _PUBLISHED)


@refuse_wrong_types
def find_score(name: str) -> Score:
    """A score by its name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SCORES:
        raise ValueError(
            f"no head score {name!r}: expected one of {', '.join(SCORES)}; correct the name."
        )
    return SCORES[name]


def pairs_of(
    pairs: Sequence[ContrastivePair | tuple[ImageLike, str, str]],
) -> list[ContrastivePair]:
    """Contrastive pairs from the argument of `score_heads`; a tuple gets its number as id.

    Raises:
        ValueError: an entry is neither a pair nor a tuple of three, or its image cannot be read.
    """
    pictures: dict[int, Any] = {}  # the same array stays the same object, whose forward is shared
    converted = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, ContrastivePair):
            converted.append(pair)
            continue
        if not isinstance(pair, Sequence) or len(pair) != 3 or isinstance(pair, str):
            raise ValueError(
                f"pair {number} is {kind_of_value(pair)}: expected a ContrastivePair, or a tuple "
                "(image, question, contrastive question); pass one of them."
            )
        image, *texts = pair
        if not isinstance(image, str | Path | Image.Image):
            image = pictures.setdefault(id(image), None) or load_image(image)
            pictures[id(pair[0])] = image
        converted.append(ContrastivePair(image, *texts, id=str(number)))
    return converted


@refuse_wrong_types
def score_heads(
    model: HookedLVLM,
    pairs: Sequence[ContrastivePair | tuple[ImageLike, str, str]],
    *,
    score: str = "ars",
    batch_size: int = 8,
    prompt: str = "chat",
    any_text: bool = False,
    as_published: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> ARSProfile:
    """The score of every head as the mean over contrastive pairs; by default ARS, equation 3.

    Texts about the same image (the same path or object), such as both texts of a pair, share the
    forward up to the end of the image, if `prefix.can_share` says that this is exact.

    Args:
        model: the hooked model. Active hooks stay active, and then nothing is shared.
        pairs: contrastive pairs, or tuples (image, question, contrastive question); both texts of a
            pair go through the model in one batch.
        score: a name in `SCORES`.
        batch_size: pairs per forward (twice as many prompts).
        prompt: prompt preset or template, as in `model.prepare`.
        any_text: also take pairs that `check_pair` refuses, whose texts differ in more than one word.
        as_published: compute ARS as the authors' code does, see `maps.ars_as_published`. The name of
            the score is then "ars-as-published".
        progress: wraps the iteration over batches, for a progress bar.

    Returns:
        a profile with `scores` [layer head] and `per_pair` [pair layer head].

    Raises:
        ValueError: a model in training mode, no pairs, a pair that `check_pair` refuses, an image
            that cannot be read, an unknown score, or as_published with another score than ARS.
    """
    if as_published and score not in ("ars", _PUBLISHED):
        raise ValueError(
            f"as_published with score={score!r}: expected 'ars', which the authors' code computes; "
            "leave one of them out."
        )
    score = _PUBLISHED if as_published else score
    of_pairs = find_score(score).of_pairs
    if model.hf_model.training:
        raise ValueError(
            "the model is in training mode, where dropout and gradient checkpointing change what it "
            "computes: expected evaluation mode; call model.eval() first."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1; pass a larger number.")
    if not pairs:
        raise ValueError(
            "no contrastive pairs are given: expected at least one; see ContrastivePair."
        )
    pairs = pairs_of(pairs)
    for pair in () if any_text else pairs:
        check_pair(pair)
    for path in dict.fromkeys(p.image for p in pairs if isinstance(p.image, str | Path)):
        load_image(path)  # A torn one would lose hours of work near the end.
    starts = range(0, len(pairs), batch_size)
    batches = (pairs[start : start + batch_size] for start in (progress or iter)(starts))
    per_pair = torch.cat([of_pairs(model, batch, prompt) for batch in batches])
    return profile_of(model, per_pair, score, prompt)


def profile_of(model: HookedLVLM, per_pair: PerPair, score: str, prompt: str) -> ARSProfile:
    """The profile of a model with these scores, and a record of how they were measured.

    Args:
        model: the model of the heads.
        per_pair: scores, float32 [pair layer head].
        score: a name in `SCORES`.
        prompt: the preset or template.
    """
    return ARSProfile.from_scores(
        per_pair.mean(dim=0),
        per_pair,
        model.attention_layers,
        model=model.name,
        dtype=dtype_name(model),
        weights=weights_digest(model),
        score=score,
        prompt=prompt,
        n_pairs=len(per_pair),
        versions={name: metadata.version(name) for name in ("torch", "transformers")},
    )
