"""A profile of the model's heads by each score, from the same pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from rvelens.heads.profile import ARSProfile
from rvelens.scores import COMPARED, find_score
from rvelens.studies.ars_map.stability import common, middle_of_draws
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.pairs import by_pair


def chosen_scores(setup: Setup) -> list[str]:
    """Names of the scores that are compared, those of `COMPARED` where none is named.

    Raises:
        ValueError: an unknown score.
    """
    names = setup.options["scores"] or list(COMPARED)
    return [find_score(str(name)).name for name in dict.fromkeys(names)]


def profile_by(setup: Setup, score: str) -> ARSProfile:
    """The profile of one score over the study's pairs."""
    per_pair = torch.tensor(by_pair(setup, score, f"{score}-pairs"), dtype=torch.float32)
    return ARSProfile.from_scores(
        per_pair.mean(dim=0), per_pair, model=setup.model.name, score=score, n_pairs=len(per_pair)
    )


def halves_agree(profile: ARSProfile, k: int, n_draws: int, seed: int) -> dict[str, float] | None:
    """Share of each layer's k first heads that two disjoint halves of the pairs have in common.

    Returns:
        the mean over layers and draws, and the middle 95% of the draws; None of a single pair.
    """
    assert profile.per_pair is not None  # `profile_by` keeps them
    per_pair, rng = profile.per_pair.double().numpy(), np.random.default_rng(seed)
    draws = [rng.permutation(len(per_pair)) for _ in range(n_draws)]
    half = len(per_pair) // 2
    return middle_of_draws(common(per_pair, draws, half, k)) if half else None


def rankings(profiles: Mapping[str, ARSProfile]) -> dict[str, list[list[int]]]:
    """Heads of each layer in their order, by score."""
    return {name: profile.ranking.tolist() for name, profile in profiles.items()}
