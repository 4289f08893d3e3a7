"""Time of many settings of RVE side by side, against one plain evaluation of the same questions.

The plain evaluation is that of this package, whose prompts end early in their last layer. The plain
`generate` of whole prompts, as a model is evaluated without this package, is timed as well.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from PIL import Image

from rvelens.evaluate.answering import Decoding, answer, answer_each
from rvelens.heads.layers import parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.hooks import rve_hooks
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.speed.clock import interleaved, quartiles
from rvelens.speed.counts import count_arithmetic
from rvelens.speed.results import Ratio, SettingsResult
from rvelens.speed.shapes import IMAGE_TOKEN, processor_of

N_QUESTIONS, QUESTION_TOKENS, ANSWER_TOKENS = 4, 12, 2
ALPHAS, BETAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7), (0.5, 1.0, 1.5, 2.0)
PLAIN, WHOLE, SETTINGS = "plain", "plain generate", "32 settings"
_PROMPT = "w11 w12 w13 w14 {image} {question} w15"


def settings_side_by_side(model: HookedLVLM, runs: int, device: str) -> SettingsResult:
    """Greedy answers under 32 settings of RVE against plain ones, each question on its own image.

    Args:
        model: a LLaVA of `rvelens.speed.shapes`.
        runs: rounds; one more warms up.
        device: "cpu" or "cuda".

    Returns:
        seconds of each way; of the settings over each plain way the median of the ratios within
        rounds, its quartiles and the ratio of arithmetic; and whether four of the settings gave the
        answers that each gives alone.
    """
    hooked = HookedLVLM(model.hf_model, processor_of())
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8))
        for _ in range(N_QUESTIONS)
    ]
    words = rng.integers(10, IMAGE_TOKEN, (N_QUESTIONS, QUESTION_TOKENS))
    questions = [" ".join(f"w{n}" for n in row) for row in words]
    names = [str(n) for n in range(N_QUESTIONS)]
    decoding = Decoding(_PROMPT, max_new_tokens=ANSWER_TOKENS)
    scores = torch.rand(hooked.n_layers, hooked.n_heads, generator=torch.Generator().manual_seed(2))
    profile = ARSProfile.from_scores(scores)
    layers, k = parse_layers("preset", None, hooked.n_layers), min(5, hooked.n_heads // 2)
    settings = [rve_hooks(profile, layers, k, alpha, beta) for alpha in ALPHAS for beta in BETAS]
    vanilla = make_method("vanilla", hooked)
    answers: list[list[tuple[str, float | None]]] = []

    def plain() -> None:
        answer(hooked, vanilla, images, questions, names, decoding)

    def side_by_side() -> None:
        answers[:] = answer_each(hooked, settings, images, questions, decoding)

    def whole() -> None:
        _alone(hooked, [], images, questions, names, decoding)

    functions = {PLAIN: plain, WHOLE: whole, SETTINGS: side_by_side}
    seconds = interleaved(functions, runs, device)
    counts = {name: count_arithmetic(function) for name, function in functions.items()}
    over = {name: _over(seconds, counts, name) for name in (PLAIN, WHOLE)}
    return {
        "settings": len(settings),
        "questions": N_QUESTIONS,
        "answer_tokens": ANSWER_TOKENS,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        **over[PLAIN],
        "whole": over[WHOLE],
        "same_answers": all(
            _alone(hooked, settings[n], images, questions, names, decoding)
            == [of_question[n][0] for of_question in answers]
            for n in range(0, len(settings), 8)
        ),
    }


def _over(seconds: dict[str, list[float]], counts: dict[str, int], plain: str) -> Ratio:
    """Time and arithmetic of the settings over those of a plain way."""
    ratios = [b / a for a, b in zip(seconds[plain], seconds[SETTINGS], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "quartiles": quartiles(ratios),
        "arithmetic": counts[SETTINGS] / counts[plain],
    }


def _alone(
    model: HookedLVLM, hooks: Any, images: Any, questions: Any, names: Any, decoding: Decoding
) -> list[str]:
    with model.hooks(hooks):
        inputs = model.prepare(images, questions, decoding.prompt)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=decoding.max_new_tokens)
    assert isinstance(output, torch.Tensor)
    return model.decode(output, inputs["input_ids"])
