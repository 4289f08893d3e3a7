"""What a score of heads finds on each contrastive pair of a study, kept as it is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from rvelens.evaluate.manifest import about_model, versions
from rvelens.heads.pair import ContrastivePair, check_pair, with_suffix
from rvelens.heads.profile import ARSProfile
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.scores import score_heads
from rvelens.scores.heads import PerPair, profile_of
from rvelens.studies.kit.base import Setup, iterate
from rvelens.studies.kit.parts import Parts, shared_parts

CHUNK = 32  # Pairs that are kept together; a file's name must not depend on the batch size.


def by_pair(setup: Setup, score: str, label: str) -> Float[np.ndarray, "pair layer head"]:
    """The score of every head on every pair of the study.

    Args:
        setup: of the study; its run has refused texts that it was not told to take.
        score: a name in `rvelens.scores.SCORES`.
        label: names what is computed, for progress; with hyphens, a file's name.
    """
    every = with_suffix(setup.pairs, setup.decoding.suffix)

    def compute(pairs: Sequence[ContrastivePair]) -> PerPair:
        return _per_pair(setup.model, pairs, score, setup.batch_size, setup.decoding.prompt)

    progress = iterate(setup.progress, label)
    return _score_chunks(setup.parts, every, CHUNK, label, compute, progress)


def score_heads_together(
    model: HookedLVLM,
    pairs: Sequence[ContrastivePair],
    folder: Path,
    *,
    score: str = "ars",
    batch_size: int = 8,
    prompt: str = "chat",
    any_text: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> ARSProfile | None:
    """`score_heads` by several processes, which keep what they compute in a folder.

    The batches are those of one process, so the profile is the same. An interrupted run is resumed.

    Args:
        model, pairs, score, batch_size, prompt, any_text, progress: as in `score_heads`.
        folder: where scores of pairs are kept, of this model and these settings alone.

    Returns:
        the profile; None in all but the first process.

    Raises:
        ValueError: what `score_heads` refuses; the folder holds scores that were made with something
            else; another process failed or is gone.
    """
    for pair in () if any_text else pairs:
        check_pair(pair)
    made_with = {
        "model": about_model(model),
        "pairs": digest_of_pairs(pairs),
        "score": score,
        "prompt": prompt,
        "batch_size": batch_size,
        "versions": versions(),
    }

    def compute(chunk: Sequence[ContrastivePair]) -> PerPair:
        return _per_pair(model, chunk, score, batch_size, prompt)

    with shared_parts(folder, made_with) as parts:
        scores = _score_chunks(parts, pairs, batch_size, "pairs", compute, progress)
    if not parts.here.is_first:
        return None
    return profile_of(model, torch.as_tensor(scores, dtype=torch.float32), score, prompt)


def _per_pair(
    model: HookedLVLM, pairs: Sequence[ContrastivePair], score: str, batch_size: int, prompt: str
) -> PerPair:
    """Scores of pairs whose texts have been looked at."""
    profile = score_heads(
        model, pairs, score=score, batch_size=batch_size, prompt=prompt, any_text=True
    )
    assert profile.per_pair is not None
    return profile.per_pair


def _score_chunks(
    parts: Parts,
    pairs: Sequence[ContrastivePair],
    size: int,
    label: str,
    compute: Callable[[Sequence[ContrastivePair]], PerPair],
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> Float[np.ndarray, "pair layer head"]:
    """Scores of all pairs, so many of them a part."""
    chunks = parts.keep_each(
        {
            f"{label}-{start:06d}": lambda part=pairs[start : start + size]: compute(part).tolist()
            for start in range(0, len(pairs), size)
        },
        progress,
    )
    return np.array([row for chunk in chunks for row in chunk], dtype=float)


def digest_of_pairs(pairs: Sequence[ContrastivePair]) -> str | None:
    """Identifies pairs by their texts and names."""
    if not pairs:
        return None
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.id}\t{pair.question}\t{pair.contrastive}\n".encode())
    return digest.hexdigest()
