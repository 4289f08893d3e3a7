"""A context that finds the token map of every forward of TransformerLens' bridge."""

from __future__ import annotations

import subprocess

import pytest
import torch
from tiny_models import IMAGES, QUESTIONS, build
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.transformers import helpers

from rvelens import TokenMap, follow_bridge
from rvelens.hooks import rve_hooks


def refuse(*args, **kwargs):
    raise AssertionError("something tried to install a package")


@pytest.fixture
def bridge(monkeypatch):
    monkeypatch.setattr(helpers, "_ensure_torchvision", refuse)
    monkeypatch.setattr(subprocess, "check_call", refuse)
    hf_model, _ = build("llava")
    return build_bridge_from_module(
        hf_model, "LlavaForConditionalGeneration", hf_config=hf_model.config
    )


def rest(inputs):
    return {k: v for k, v in inputs.items() if k != "input_ids"}


@torch.no_grad()
def test_forwards_find_their_maps(model, bridge, inputs, profile):
    hooks = rve_hooks(profile, range(3), k=3, alpha=0.3)
    one = model.prepare(IMAGES[1], QUESTIONS[1])
    with follow_bridge(bridge), bridge.hooks(fwd_hooks=hooks):
        for batch in (inputs, one, inputs):
            theirs = bridge(batch["input_ids"], **rest(batch))[:, -1]
            with model.hooks(hooks):
                ours = model(**batch)[:, -1]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.no_grad()
def test_generation_finds_a_map_at_every_step(model, bridge, inputs, profile):
    hooks = rve_hooks(profile, range(3), k=3, alpha=0.3)
    options = {"max_new_tokens": 6, "do_sample": False}
    seen = []

    def look(x, hook):
        seen.append(hook.ctx["tokens"].n_keys)

    with model.hooks(hooks):
        ours = model.generate(**inputs, **options)
    with follow_bridge(bridge), bridge.hooks(fwd_hooks=[*hooks, ("blocks.0.attn.hook_z", look)]):
        theirs = bridge.original_model.generate(**inputs, **options)
    assert torch.equal(ours, theirs)
    n = inputs["input_ids"].shape[1]
    assert seen == list(range(n, n + 6))


@torch.no_grad()
def test_nothing_is_left_behind(bridge, inputs):
    def torch_hooks():
        modules = bridge.original_model.modules()
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]

    bridge(inputs["input_ids"], **rest(inputs))  # the bridge puts hooks of its own at the first
    before, methods = torch_hooks(), [dict(m.__dict__) for m in bridge.original_model.modules()]
    with follow_bridge(bridge):
        bridge(inputs["input_ids"], **rest(inputs))
        maps = [point.ctx["tokens"] for point in bridge.hook_dict.values()]
        assert all(isinstance(m, TokenMap) for m in maps)
    assert torch_hooks() == before
    after = [dict(m.__dict__) for m in bridge.original_model.modules()]
    assert [m.keys() for m in after] == [m.keys() for m in methods]
    assert all(point.ctx["tokens"] is None for point in bridge.hook_dict.values())


def test_other_models_are_refused(model):
    with (
        pytest.raises(ValueError, match=r"HookedLVLM is followed: expected a TransformerBridge"),
        follow_bridge(model),
    ):
        pass
