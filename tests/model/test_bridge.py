"""The very hooks that run on HookedLVLM run on TransformerLens' bridge of the same weights."""

from __future__ import annotations

import subprocess

import pytest
import torch
from tiny_models import IMAGES, QUESTIONS, build
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.transformers import helpers

from rvelens import ARSProfile, HookedLVLM, attach_tokens
from rvelens.hooks import ars_caching_hooks, head_mask_hooks, rve_hooks
from rvelens.hooks.region import dilution_hooks

pytestmark = pytest.mark.slow
LAYERS = range(3)


def refuse(*args, **kwargs):
    raise AssertionError("something tried to install a package")


@pytest.fixture
def bridge(model, inputs, monkeypatch):
    """TransformerLens' bridge of the weights of `model`, with the token map of `inputs`."""
    monkeypatch.setattr(helpers, "_ensure_torchvision", refuse)
    monkeypatch.setattr(subprocess, "check_call", refuse)
    hf_model, _ = build("llava")
    bridge = build_bridge_from_module(
        hf_model, "LlavaForConditionalGeneration", hf_config=hf_model.config
    )
    attach_tokens(bridge.hook_dict.values(), model.token_map(inputs))
    return bridge


def last_rows(model, bridge, inputs, hooks):
    """Logits of the last row from both, under the same list of hooks."""
    with torch.no_grad():
        with model.hooks(hooks):
            ours = model(**inputs)[:, -1]
        with bridge.hooks(fwd_hooks=hooks):
            theirs = bridge(inputs["input_ids"], **without_ids(inputs))[:, -1]
    return ours, theirs


def without_ids(inputs):
    return {k: v for k, v in inputs.items() if k != "input_ids"}


def test_unhooked_models_agree(model, bridge, inputs):
    ours, theirs = last_rows(model, bridge, inputs, [])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("query_rows", ["last", "all"])
@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("scope", ["all", "sensitive"])
def test_rve(model, bridge, inputs, profile, scope, denoise, query_rows):
    model.query_rows = query_rows
    hooks = rve_hooks(profile, LAYERS, k=3, alpha=0.3, scope=scope, denoise=denoise)
    plain, _ = last_rows(model, bridge, inputs, [])
    ours, theirs = last_rows(model, bridge, inputs, hooks)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert (ours - plain).abs().max() > 0.01


def test_rve_during_generation(model, bridge, inputs, profile):
    hooks = rve_hooks(profile, LAYERS, k=3, alpha=0.3)
    options = {"max_new_tokens": 6, "do_sample": False}
    with model.hooks(hooks):
        ours = model.generate(**inputs, **options)
    with torch.no_grad(), bridge.hooks(fwd_hooks=hooks):
        theirs = bridge.original_model.generate(**inputs, **options)
    assert torch.equal(ours, theirs)


def test_head_masks(model, bridge, inputs):
    plain, _ = last_rows(model, bridge, inputs, [])
    ours, theirs = last_rows(model, bridge, inputs, head_mask_hooks({0: [1, 5], 2: [7]}))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert (ours - plain).abs().max() > 0.01


def test_dilution(model, bridge, inputs):
    plain, _ = last_rows(model, bridge, inputs, [])
    ours, theirs = last_rows(model, bridge, inputs, dilution_hooks(LAYERS, 0.5, -1.0))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert (ours - plain).abs().max() > 0.01


def test_ars_recording(model, bridge, inputs):
    cache: dict[int, torch.Tensor] = {}
    hooks = ars_caching_hooks(LAYERS, cache)
    with torch.no_grad():
        with model.hooks(hooks):
            model(**inputs)
        ours = dict(cache)
        cache.clear()
        with bridge.hooks(fwd_hooks=hooks):
            bridge(inputs["input_ids"], **without_ids(inputs))
    assert sorted(ours) == sorted(cache) == list(LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(ours[layer], cache[layer], rtol=0, atol=1e-5)


def test_without_a_token_map_the_hook_says_what_to_do(model, inputs, profile):
    hf_model, _ = build("llava")
    bridge = build_bridge_from_module(
        hf_model, "LlavaForConditionalGeneration", hf_config=hf_model.config
    )
    hooks = rve_hooks(profile, [0], k=3)
    with (
        pytest.raises(ValueError, match=r"no token map.*rvelens\.attach_tokens"),
        bridge.hooks(fwd_hooks=hooks),
    ):
        bridge(inputs["input_ids"], **without_ids(inputs))


def test_batches_of_one_prompt(bridge, profile):
    hf_model, processor = build("llava")
    model = HookedLVLM(hf_model, processor)
    hooks = rve_hooks(ARSProfile.from_scores(profile.scores), [1, 2], k=2, alpha=1.0)
    for image, question in zip(IMAGES, QUESTIONS, strict=True):
        inputs = model.prepare(image, question)
        attach_tokens(bridge.hook_dict.values(), model.token_map(inputs))
        ours, theirs = last_rows(model, bridge, inputs, hooks)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
