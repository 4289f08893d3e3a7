"""Contrastive decoding, literally: both branches from scratch at each step, combined in loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from tiny_inputs import SPECIAL_IDS
from torch import Tensor

from rvelens import HookedLVLM

Combine = Callable[[list[float], list[float]], list[float]]
Pick = Callable[[Tensor], Tensor]


def contrast(alpha: float, beta: float) -> Combine:
    """(1 + a) l - a l', and minus infinity below max(l) + log b."""

    def combine(one: list[float], other: list[float]) -> list[float]:
        cutoff = max(one) + math.log(beta)
        return [
            (1 + alpha) * x - alpha * y if x >= cutoff else -math.inf
            for x, y in zip(one, other, strict=True)
        ]

    return combine


def next_logits(model: HookedLVLM, inputs: Any, new: Tensor) -> Tensor:
    """Logits behind the prompts and the tokens so far: one whole forward, no cache."""
    full = dict(inputs)
    full["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
    full["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in full:
            full[key] = torch.cat([full[key], torch.zeros_like(new)], dim=1)
    return model(**full, use_cache=False)[:, -1]


@torch.no_grad()
def decode(
    model: HookedLVLM,
    inputs: Any,
    negative: Callable[[Tensor], Tensor] | Any,
    combine: Combine,
    pick: Pick = lambda scores: scores.argmax(dim=-1),
    suppress: list[int] = SPECIAL_IDS,
) -> tuple[Tensor, Tensor]:
    """Six tokens [batch 6] and the scores that each was picked from [batch 6 vocab].

    `negative` is the second branch's inputs, or its logits as a function of the tokens so far.
    """
    new, scores = inputs["input_ids"][:, :0], []
    for _ in range(6):
        one = next_logits(model, inputs, new)
        one[:, suppress] = -math.inf  # As generate does before it calls any processor.
        other = negative(new) if callable(negative) else next_logits(model, negative, new)
        rows = zip(one.tolist(), other.tolist(), strict=True)
        scores.append(torch.tensor([combine(*row) for row in rows]))
        new = torch.cat([new, pick(scores[-1])[:, None]], dim=1)
    return new, torch.stack(scores, dim=1)


def repeated(inputs: Any, times: int) -> dict[str, Any]:
    """Each sample several times in place; for inputs whose first axis is the batch throughout."""
    return {name: value.repeat_interleave(times, dim=0) for name, value in inputs.items()}


def assert_same(output: Any, expected: tuple[Tensor, Tensor]) -> None:
    """Equal tokens, the same tokens ruled out, and scores within 1e-4."""
    tokens, scores = expected
    assert torch.equal(output.sequences[:, -6:], tokens)
    torch.testing.assert_close(torch.stack(output.scores, dim=1), scores, rtol=1e-4, atol=1e-4)
