"""What the family tests share: cases, the hooked model, and the literal reference beside it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from reference import NAME, RVE, active
from tiny_models import FAMILIES, IMAGES, QUESTIONS, build
from torch import Tensor

from rvelens import ARSProfile, HookedLVLM
from rvelens.families import Family, family_of

CASES = tuple(FAMILIES)
CLAIMS: dict[str, set[str]] = {}


def verifies(claim: str, cases: Iterable[str] = CASES) -> pytest.MarkDecorator:
    """Run a test on each case, and note that this is what `claim` rests on."""
    CLAIMS.setdefault(claim, set()).update(cases)
    return pytest.mark.parametrize("name", list(cases))


@cache
def family_of_case(name: str) -> Family:
    """ShareGPT4V is LLaVA by its configuration; the others tell by themselves."""
    return family_of(name) if name == "sharegpt4v" else family_of(build(name)[0].config)


def hooked(name: str) -> HookedLVLM:
    """The tiny model of a case, wrapped."""
    hf_model, processor = build(name)
    return HookedLVLM.from_pretrained(
        hf_model, processor=processor, family="sharegpt4v" if name == "sharegpt4v" else None
    )


def profile_of(model: HookedLVLM, seed: int = 0) -> ARSProfile:
    """Random sensitivities: another order of heads in every layer."""
    generator = torch.Generator().manual_seed(seed)
    return ARSProfile.from_scores(torch.rand(model.n_layers, model.n_heads, generator=generator))


def reference_of(profile: ARSProfile, inputs: Any, image_token_id: int, **options: Any) -> RVE:
    """The literal reference with the parameters that `rve_hooks` gets."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    image = [torch.nonzero(row == image_token_id).flatten().tolist() for row in ids]
    last = [int(torch.nonzero(row).max()) for row in mask]
    return RVE(profile.ranking.tolist(), image=image, last=last, **options)


def reference_logits(name: str, inputs: Any, new: Tensor, rve: RVE | None) -> Tensor:
    """Logits of the literal reference that predict each of the new tokens, [batch, new, vocab].

    One forward over the prompt and the tokens that were generated, without any cache.
    """
    n_prompt = inputs["input_ids"].shape[1]
    full = dict(inputs)
    ones = torch.ones_like(new)
    full["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
    full["attention_mask"] = torch.cat([inputs["attention_mask"], ones], dim=1)
    if not name.startswith("qwen"):  # Positions as `generate` counts them: padding has none.
        positions = (full["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        full["position_ids"] = positions + (name == "paligemma")
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in full:
            # PaliGemma: 1 is what comes after the prefix; elsewhere 0 is text.
            kind = ones if name == "paligemma" else 0 * ones
            full[key] = torch.cat([full[key], kind], dim=1)
    return reference_forward(name, full, rve)[:, n_prompt - 1 : n_prompt - 1 + new.shape[1]]


def reference_forward(name: str, inputs: Any, rve: RVE | None) -> Tensor:
    """Logits of the literal reference for every row, [batch, key, vocab]."""
    hf_model, _ = build(name)
    hf_model.set_attn_implementation({"text_config": NAME})
    with torch.no_grad(), active(rve):
        return hf_model(**inputs).logits


def generate(model: HookedLVLM, inputs: Any, **how: Any) -> Any:
    """Six greedy tokens or beams, with what transformers reports about them."""
    how |= {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    return model.generate(**inputs, **how)


def batch(model: HookedLVLM, times: int = 1) -> Any:
    """Three images of different shapes, three questions of different lengths, left-padded."""
    images = [image for image in IMAGES for _ in range(times)]
    questions = [question for question in QUESTIONS for _ in range(times)]
    return model.prepare(images, questions)
