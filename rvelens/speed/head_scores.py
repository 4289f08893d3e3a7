"""Time of `score_heads`, whose texts share their images, against a forward for each text."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rvelens.heads.pair import ContrastivePair
from rvelens.hooks import ars_caching_hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.scores import score_heads
from rvelens.scores.maps import ars
from rvelens.speed.clock import interleaved, quartiles
from rvelens.speed.results import ScoringResult
from rvelens.speed.shapes import IMAGE_TOKEN, processor_of

N_PAIRS, QUESTION_TOKENS = 2, 12
SEPARATE, SHARED = "two forwards", "score_heads"
SCORING_PROMPT = "w11 w12 w13 w14 {image} {question} w15"


def scoring(model: HookedLVLM, runs: int, device: str) -> ScoringResult:
    """ARS of a batch of pairs, each with an image of its own, in two ways.

    "two forwards" runs all original texts in one forward and all contrastive ones in another, both
    under the recording hooks; "score_heads" is that function. Both turn images and texts into inputs
    within their time, and neither computes logits of more than the last token.

    Args:
        model: a LLaVA of `rvelens.speed.shapes`.
        runs: rounds; one more warms up.
        device: "cpu" or "cuda".

    Returns:
        seconds of each way, the median of the ratios within rounds (score_heads over two forwards)
        with its quartiles, the largest score of a head in a pair (random weights hardly tell two
        questions apart), and by how much any of them differs between the ways at most.
    """
    scored = HookedLVLM(model.hf_model, processor_of())
    pairs = _pairs()
    scores: dict[str, Tensor] = {}

    def separate() -> None:
        scores[SEPARATE] = _two_forwards(scored, pairs)

    def shared() -> None:
        per_pair = score_heads(scored, pairs, batch_size=N_PAIRS, prompt=SCORING_PROMPT).per_pair
        assert per_pair is not None
        scores[SHARED] = per_pair

    seconds = interleaved({SEPARATE: separate, SHARED: shared}, runs, device)
    ratios = [b / a for a, b in zip(seconds[SEPARATE], seconds[SHARED], strict=True)]
    return {
        "pairs": N_PAIRS,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "ratio": statistics.median(ratios),
        "quartiles": quartiles(ratios),
        "largest_score": float(scores[SEPARATE].max()),
        "largest_difference": float((scores[SEPARATE] - scores[SHARED]).abs().max()),
    }


def _pairs() -> list[ContrastivePair]:
    """Random images and questions; the contrastive text has another word in its middle."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(N_PAIRS):
        image = Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8))
        words = rng.integers(10, IMAGE_TOKEN - 1, QUESTION_TOKENS)
        other = words + (np.arange(QUESTION_TOKENS) == QUESTION_TOKENS // 2)
        texts = (" ".join(f"w{n}" for n in row) for row in (words, other))
        pairs.append(ContrastivePair(image, *texts))
    return pairs


@torch.no_grad()
def _two_forwards(model: HookedLVLM, pairs: list[ContrastivePair]) -> Tensor:
    """Equation 3 for each pair, [pair layer head], from one forward for each text."""
    images = [pair.image for pair in pairs]
    attention: list[dict[int, Tensor]] = [{}, {}]
    texts = [pair.question for pair in pairs], [pair.contrastive for pair in pairs]
    for cache, questions in zip(attention, texts, strict=True):
        with model.hooks(ars_caching_hooks(model.attention_layers, cache)):
            model(**model.prepare(images, questions, SCORING_PROMPT), logits_to_keep=1)
    first, second = attention
    return torch.stack([ars(first[n], second[n]).cpu() for n in model.attention_layers], dim=1)
