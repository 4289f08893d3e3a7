"""Edits at points under beams, static caches and later turns, against plain torch hooks."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from family_cases import CASES, IMAGES, QUESTIONS, batch, hooked
from plain_hooks import edited, halved
from tiny_models import build

LAYER = 1
POINTS = ("hook_resid_post", "hook_attn_out", "attn.hook_q", "attn.hook_z", "attn.hook_rot_k")
WAYS = {
    "beams": {"num_beams": 3},
    "groups of sequences": {"num_beams": 2, "num_return_sequences": 2},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
}


@cache
def model_of(name):
    return hooked(name)


@cache
def plain_of(name):
    return build(name)[0]


def hook_of(edit):
    return lambda x, hook: edit(x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_generation_is_that_of_a_plain_torch_hook(name, way):
    model, plain = model_of(name), plain_of(name)
    inputs = dict(batch(model))
    options = {
        "max_new_tokens": 3, "do_sample": False, "output_logits": True,
        "return_dict_in_generate": True, **WAYS[way],
    }  # fmt: skip
    unedited = plain.generate(**inputs, **options)
    for point in POINTS:
        with model.hooks([(f"blocks.{LAYER}.{point}", hook_of(halved))]):
            ours = model.generate(**inputs, **options)
        with edited(plain, LAYER, point, halved):
            theirs = plain.generate(**inputs, **options)
        assert torch.equal(ours.sequences, theirs.sequences), point
        torch.testing.assert_close(
            torch.stack(ours.logits), torch.stack(theirs.logits), rtol=1e-4, atol=1e-4
        )
        assert not torch.equal(theirs.logits[0], unedited.logits[0]), point


@pytest.mark.parametrize("name", [name for name in CASES if name != "instructblip"])
@torch.no_grad()
def test_a_second_turn_is_that_of_a_plain_torch_hook(name):
    """The first turn without hooks, the second behind its cache with them."""
    model, plain = model_of(name), plain_of(name)
    inputs = dict(model.prepare(IMAGES[0], QUESTIONS[0]))
    follow = inputs["input_ids"][:, -3:]

    def second(hf_model, turned_on):
        past = hf_model(**inputs, use_cache=True).past_key_values
        with turned_on:
            return hf_model(input_ids=follow, past_key_values=past).logits

    for point in POINTS:
        ours = second(model.hf_model, model.hooks([(f"blocks.{LAYER}.{point}", hook_of(halved))]))
        theirs = second(plain, edited(plain, LAYER, point, halved))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
