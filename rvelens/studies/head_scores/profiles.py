"""A profile of the model's heads by each score, from the same pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rvelens.contrastive import ContrastivePair, with_suffix
from rvelens.profile import ARSProfile
from rvelens.scores import SCORES, find_score, score_heads
from rvelens.studies.ars_map.stability import overlap, top_heads
from rvelens.studies.kit.base import Setup, iterate

CHUNK = 32  # Pairs that are kept together; a file's name must not depend on the batch size.


def chosen_scores(setup: Setup) -> list[str]:
    """Names of the scores that are compared, all of them where none is named.

    Raises:
        ValueError: an unknown score.
    """
    given = setup.options["scores"] or list(SCORES)
    return [find_score(str(name)).name for name in dict.fromkeys(given)]


def profile_by(setup: Setup, score: str) -> ARSProfile:
    """The profile of one score over the study's pairs; kept in chunks of pairs."""
    every = with_suffix(setup.pairs, setup.decoding.suffix)
    chunks: list[Any] = []
    for start in iterate(setup.progress, f"{score}, pairs")(range(0, len(every), CHUNK)):

        def compute(pairs: Sequence[ContrastivePair] = every[start : start + CHUNK]) -> Any:
            found = score_heads(
                setup.model, pairs, score=score, batch_size=setup.batch_size,
                prompt=setup.decoding.prompt, any_text=True,  # `run` has checked the pairs
            )  # fmt: skip
            assert found.per_pair is not None
            return found.per_pair.tolist()

        chunks += setup.parts.keep(f"{score}-pairs-{start:06d}", compute)
    per_pair = torch.tensor(chunks)
    return ARSProfile.from_scores(
        per_pair.mean(dim=0), per_pair, model=setup.model.name, score=score, n_pairs=len(every)
    )


def halves_agree(profile: ARSProfile, k: int, n_draws: int, seed: int) -> dict[str, float] | None:
    """Share of each layer's k first heads that two disjoint halves of the pairs have in common.

    Returns:
        the mean over layers and draws, and the middle 95% of the draws; None of a single pair.
    """
    assert profile.per_pair is not None  # `profile_by` keeps them
    per_pair = profile.per_pair.double().numpy()
    half = len(per_pair) // 2
    if not half:
        return None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_draws):
        order = rng.permutation(len(per_pair))
        two = (order[:half], order[half : 2 * half])
        first, second = (top_heads(per_pair[side].mean(axis=0), k) for side in two)
        found.append(overlap(first, second, k))
    low, high = np.percentile(found, [2.5, 97.5])
    return {"value": float(np.mean(found)), "low": float(low), "high": float(high)}


def rankings(profiles: Mapping[str, ARSProfile]) -> dict[str, list[list[int]]]:
    """Heads of each layer in their order, by score."""
    return {name: profile.ranking.tolist() for name, profile in profiles.items()}
