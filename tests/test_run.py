"""The token map follows caches: decode steps, chunked prompts, cropped caches, several at once."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from rvelens.hooks import rve_hooks


@pytest.fixture
def hooks(model, profile):
    return rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)


def split(inputs, at):
    first = {**inputs, "input_ids": inputs["input_ids"][:, :at]}
    first["attention_mask"] = inputs["attention_mask"][:, :at]
    last = {"input_ids": inputs["input_ids"][:, at:], "attention_mask": inputs["attention_mask"]}
    return first, last


@torch.no_grad()
def test_a_prompt_in_two_pieces(model, inputs, hooks):
    first, last = split(inputs, inputs["input_ids"].shape[1] - 4)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    with model.hooks(hooks):
        pieces = model(**last, past_key_values=cache)[:, -1]
        whole = model(**inputs)[:, -1]
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)
    assert model.tokens.n_image == model.token_map(inputs).n_image


@torch.no_grad()
def test_two_generations_in_turn(model, inputs, hooks):
    one, two = ({k: v[i : i + 1] for k, v in inputs.items()} for i in (0, 1))
    first, last = split(one, one["input_ids"].shape[1] - 1)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    with model.hooks(hooks):
        expected = model(**one)[:, -1]
        model(**two)
        resumed = model(**last, past_key_values=cache)[:, -1]
    torch.testing.assert_close(resumed, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_cache_of_picked_samples_runs_unhooked_and_is_answered_hooked(model, inputs, hooks):
    first, last = split(inputs, inputs["input_ids"].shape[1] - 1)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    cache.batch_select_indices(torch.tensor([0, 1]))
    two = {k: v[:2] for k, v in last.items()}
    assert torch.isfinite(model(**two, past_key_values=cache)).all()
    with pytest.raises(ValueError, match="has no token map"), model.hooks(hooks):
        model(**two, past_key_values=cache)


@torch.no_grad()
def test_a_static_cache_generates_the_same(model, inputs, hooks):
    options = {"max_new_tokens": 5, "do_sample": False, "disable_compile": True}
    with model.hooks(hooks):
        dynamic = model.generate(**inputs, **options)
        static = model.generate(**inputs, **options, cache_implementation="static")
    assert torch.equal(dynamic, static)


@torch.no_grad()
def test_an_unknown_cache_is_answered(model, inputs, hooks):
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model.hf_model.get_decoder()(
        inputs_embeds=torch.randn(3, 5, model.hf_model.config.text_config.hidden_size),
        past_key_values=cache,
    )
    with (
        pytest.raises(ValueError, match=r"blocks\.0\.attn\.hook_attn_scores has no token map"),
        model.hooks(hooks),
    ):
        model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)
