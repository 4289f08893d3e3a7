"""Tensors that outlive a forward under inference mode can be changed and recorded afterwards."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, batch, hooked, profile_of
from transformers import StaticCache

from rvelens.hooks import devils_hooks, pai_hooks, rve_hooks, vaf_hooks
from rvelens.hooks.rve import mask_hooks


def methods(model):
    """Each method's hooks, made where this is called."""
    layers = range(model.n_layers)
    profile = profile_of(model)
    return {
        "rve": rve_hooks(profile, layers, k=2, alpha=0.3),
        "sensitive heads": rve_hooks(profile, layers, k=2, alpha=0.3, scope="sensitive"),
        "gated": rve_hooks(profile, layers, k=2, alpha=0.3, max_entropy=0.99),
        "mask": mask_hooks({n: [0, 1] for n in model.attention_layers}, model.n_heads),
        "pai": pai_hooks(model.n_layers, layers),
        "devils": devils_hooks(model.n_layers, layers),
        "vaf": vaf_hooks(model.n_layers, layers),
    }


@pytest.mark.parametrize("name", CASES)
def test_hooks_that_ran_under_inference_mode_have_gradients_afterwards(name):
    model = hooked(name)
    model.query_rows = "all"
    inputs = batch(model)
    weight = next(model.hf_model.get_output_embeddings().parameters())
    model.hf_model.requires_grad_(True)
    with torch.inference_mode():
        every = methods(model)
        for hooks in every.values():
            model.run_with_hooks(**inputs, fwd_hooks=hooks)
    for kind, hooks in every.items():
        model.hf_model.zero_grad()
        model.run_with_hooks(**inputs, fwd_hooks=hooks)[:, -1].sum().backward()
        assert weight.grad is not None, kind
    model.hf_model.zero_grad()


@pytest.mark.parametrize("modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad,) * 2])
def test_a_static_cache_counts_on_across_modes(model, inputs, profile, modes):
    """The cache's own tensors are made outside, as a server that serves many prompts makes them."""
    config = model.hf_model.config.get_text_config()
    hooks = rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)
    n_prompt = inputs["input_ids"].shape[1]
    expected = None
    for first, then in (modes, (torch.no_grad, torch.no_grad)):
        cache = StaticCache(config=config, max_cache_len=n_prompt + 8)
        shape = len(inputs["input_ids"]), config.num_key_value_heads, config.head_dim
        cache.early_initialization(*shape, torch.float32, torch.device("cpu"))
        with model.hooks(hooks):
            with first():
                logits = model(**inputs, past_key_values=cache)
            mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
            step = {"attention_mask": mask, "position_ids": mask.sum(dim=1, keepdim=True) - 1}
            ids = logits[:, -1:].argmax(dim=-1).clone()
            with then():
                logits = model(input_ids=ids, past_key_values=cache, **step)
        assert model.tokens.n_keys == n_prompt + 1
        expected = logits if expected is None else expected
        assert torch.equal(logits, expected)


@torch.no_grad()
def test_a_flag_that_was_made_under_inference_mode_is_lowered_outside(model, inputs):
    hook = ("blocks.0.attn.hook_attn_scores", lambda x, hook: x * float("nan"))
    with torch.inference_mode():
        model.add_hook(*hook)
    with pytest.raises(ValueError, match="is not finite after its hooks"):
        model(**inputs)
    assert not model.hook_dict[hook[0]].flag.is_inference()
    model.reset_hooks()
