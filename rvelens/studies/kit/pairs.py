"""What a score of heads finds on each contrastive pair of a study, kept as it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rvelens.heads.pair import ContrastivePair, with_suffix
from rvelens.scores import score_heads
from rvelens.studies.kit.base import Setup, iterate

CHUNK = 32  # Pairs that are kept together; a file's name must not depend on the batch size.


def by_pair(setup: Setup, score: str, label: str) -> Float[np.ndarray, "pair layer head"]:
    """The score of every head on every pair of the study.

    Args:
        setup: of the study; its run has refused texts that it was not told to take.
        score: a name in `rvelens.scores.SCORES`.
        label: names what is computed, for progress; with hyphens, a file's name.
    """
    every = with_suffix(setup.pairs, setup.decoding.suffix)
    chunks: list[Any] = []
    for start in iterate(setup.progress, label)(range(0, len(every), CHUNK)):

        def compute(pairs: Sequence[ContrastivePair] = every[start : start + CHUNK]) -> Any:
            found = score_heads(
                setup.model, pairs, score=score, batch_size=setup.batch_size,
                prompt=setup.decoding.prompt, any_text=True,
            )  # fmt: skip
            assert found.per_pair is not None
            return found.per_pair.tolist()

        chunks += setup.parts.keep(f"{label}-{start:06d}", compute)
    return np.array(chunks, dtype=float)
