"""Questions a second where several are asked about one image, with and without a shared prefix."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from PIL import Image

from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import prepare_shared
from rvelens.speed.clock import interleaved, quartiles
from rvelens.speed.counts import count_arithmetic
from rvelens.speed.results import SharingResult
from rvelens.speed.shapes import IMAGE_TOKEN, processor_of

# POPE asks six questions about each image; most answers are a word and the end.
N_QUESTIONS, QUESTION_TOKENS, ANSWER_TOKENS = 6, 12, 2
ALONE, SHARED = "one question at a time", "shared prefix"


def sharing(model: HookedLVLM, runs: int, device: str) -> SharingResult:
    """Six questions about an image, one `generate` each against one `generate` behind its prefix.

    Args:
        model: a LLaVA of `rvelens.speed.shapes`.
        runs: rounds; one more warms up.
        device: "cpu" or "cuda".

    Returns:
        questions a second of each way, the median of the ratios within rounds with its quartiles,
        the ratio of their arithmetic, and whether both gave the same answers.
    """
    asking = HookedLVLM(model.hf_model, processor_of())
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8))
    words = rng.integers(10, IMAGE_TOKEN, (N_QUESTIONS, QUESTION_TOKENS))
    questions = [" ".join(f"w{n}" for n in row) for row in words]
    prompt = "w11 w12 w13 w14 {image} {question} w15"
    options = {"max_new_tokens": ANSWER_TOKENS, "min_new_tokens": ANSWER_TOKENS, "do_sample": False}
    answers: dict[str, list[list[int]]] = {}

    def alone() -> None:
        answers[ALONE] = []
        for question in questions:
            output = asking.generate(**asking.prepare(image, question, prompt), **options)
            assert isinstance(output, torch.Tensor)
            answers[ALONE] += output[:, -ANSWER_TOKENS:].tolist()

    def shared() -> None:
        output = asking.generate(**prepare_shared(asking, image, questions, prompt), **options)
        assert isinstance(output, torch.Tensor)
        answers[SHARED] = output[:, -ANSWER_TOKENS:].tolist()

    seconds = interleaved({ALONE: alone, SHARED: shared}, runs, device)
    ratios = [a / b for a, b in zip(seconds[ALONE], seconds[SHARED], strict=True)]
    return {
        "questions": N_QUESTIONS,
        "answer_tokens": ANSWER_TOKENS,
        "per_second": {name: N_QUESTIONS / statistics.median(t) for name, t in seconds.items()},
        "ratio": statistics.median(ratios),
        "quartiles": quartiles(ratios),
        "arithmetic": count_arithmetic(alone) / count_arithmetic(shared),
        "same_answers": answers[ALONE] == answers[SHARED],
    }
