"""A token map holds for the keys that a cache had when it was put there, and for no others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from family_cases import CASES, batch, hooked, profile_of
from transformers import DynamicCache

from rvelens import HookedLVLM
from rvelens.hooks import rve_hooks
from rvelens.tokens.carried import carried_map

ONE_FORWARD = [name for name in CASES if name not in ("instructblip", "paligemma", "gemma3")]
every_family = pytest.mark.parametrize("name", ONE_FORWARD)


def filled(name: str, model: HookedLVLM) -> tuple[DynamicCache, dict[str, Any]]:
    """A cache of a whole prompt, and one more word for it."""
    inputs = batch(model)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model.hf_model(**inputs, past_key_values=cache)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
    word: dict[str, Any] = {"input_ids": torch.full((3, 1), 40), "attention_mask": mask}
    if name.startswith("qwen"):  # whose own positions come from generate
        word["position_ids"] = torch.full((3, 3, 1), mask.shape[1])
    return cache, word


def reorder(cache: DynamicCache) -> None:
    for layer in cache.layers:
        layer.reorder_cache(torch.tensor([2, 0, 1]))


def select(cache: DynamicCache) -> None:
    for layer in cache.layers:
        layer.batch_select_indices(torch.tensor([2, 0, 1]))


def assign(cache: DynamicCache) -> None:
    layer: Any
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.flip(0), layer.values.flip(0)


def assign_one(cache: DynamicCache) -> None:
    layer: Any = cache.layers[1]
    layer.keys, layer.values = layer.keys.flip(0), layer.values.flip(0)


def crop_and_refill(cache: DynamicCache) -> None:
    """Another model, which nobody follows, writes the last four keys anew."""
    cache.crop(-4)
    for number, layer in enumerate(cache.layers):
        new = torch.randn(*layer.keys.shape[:2], 4, layer.keys.shape[3])
        cache.update(new, new, number)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("edit", [reorder, select, assign, assign_one, crop_and_refill])
@every_family
def test_keys_that_were_exchanged_have_no_map(name, edit):
    model = hooked(name)
    cache, word = filled(name, model)
    n_keys = cache.get_seq_length()
    edit(cache)
    assert cache.get_seq_length() == n_keys
    with (
        pytest.raises(ValueError, match=r"has no token map: .* pass tokens=TokenMap"),
        model.hooks(rve_hooks(profile_of(model), range(model.n_layers), k=3, alpha=0.3)),
    ):
        model.hf_model(**word, past_key_values=cache)


@torch.no_grad()
@every_family
def test_the_cache_s_own_methods_keep_it(name):
    model = hooked(name)
    hooks = rve_hooks(profile_of(model), range(model.n_layers), k=3, alpha=0.3)
    cache, word = filled(name, model)
    with model.hooks(hooks):
        model.hf_model(**word, past_key_values=copy.deepcopy(cache))
        expected = model.tokens.image
        cache.crop(-1)
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.tensor([5, 1, 3]))
        cache.reorder_cache(torch.tensor([1, 2, 0]))
        word["attention_mask"] = word["attention_mask"][:, :-1]
        model.hf_model(**word, past_key_values=cache)
    got = model.tokens.image
    assert torch.equal(got, expected[:, : got.shape[1]])


@torch.no_grad()
def test_a_map_that_does_not_fit_costs_a_cache_nothing(model, inputs, profile):
    hooks = rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)
    cache = DynamicCache()
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    step = {
        "input_ids": inputs["input_ids"][:, -1:],
        "attention_mask": mask,
        "past_key_values": cache,
    }
    with model.hooks(hooks):
        model(**inputs, past_key_values=cache)
        short = model.tokens.crop(3)
        with pytest.raises(ValueError, match="a token map of"):
            model(**step, tokens=short)
        got = model(**step)
        again = DynamicCache()
        model(**inputs, past_key_values=again)
        assert torch.equal(model(**{**step, "past_key_values": again}), got)


@torch.no_grad()
def test_a_shallow_copy_of_a_cache_loses_no_map(model, inputs, profile):
    cache = DynamicCache()
    with model.hooks(rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)):
        model(**inputs, past_key_values=cache)
        before = carried_map(cache)
        other = copy.copy(cache)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
        ids = inputs["input_ids"][:, -1:]
        model(input_ids=ids, attention_mask=mask, past_key_values=other)
        assert carried_map(cache) is before
        model(input_ids=ids, attention_mask=mask, past_key_values=cache)


@torch.no_grad()
def test_a_piece_that_is_all_padding_for_a_sample_is_refused(model, inputs, profile):
    """Right padding as long as a whole piece: none of its rows is the sample's last real one."""
    new = torch.ones_like(inputs["input_ids"][:, :3])
    real = torch.ones_like(new)
    real[0] = 0
    mask = torch.cat([inputs["attention_mask"], real], dim=1)
    cache = DynamicCache()
    with model.hooks(rve_hooks(profile, [1], k=3, alpha=0.3)):
        model(**inputs, past_key_values=cache)
        with pytest.raises(NotImplementedError, match="and some prompts have only padding there"):
            model(input_ids=new * 9, attention_mask=mask, past_key_values=cache)
