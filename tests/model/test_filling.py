"""A prompt filled for its keys and values alone leaves what a whole forward leaves in the cache."""

from __future__ import annotations

import copy

import pytest
import torch
from family_cases import CASES, batch, hooked
from transformers import DynamicCache

from rvelens.model.filling import RoomyLayer, fill, roomy_cache
from rvelens.tokens.carried import carried_map

# Their replays are refused, and with them the fills.
REPLAYS = [name for name in CASES if name != "instructblip"]


@torch.no_grad()
@pytest.mark.parametrize("name", REPLAYS)
def test_a_filled_cache_is_that_of_a_whole_forward(name):
    model = hooked(name)
    inputs = batch(model)
    whole = model.hf_model(**inputs, use_cache=True).past_key_values
    cache = roomy_cache(model)
    fill(model, cache, **inputs)
    for layer, expected in zip(cache.layers, whole.layers, strict=True):
        assert torch.equal(layer.keys, expected.keys)
        assert torch.equal(layer.values, expected.values)
    tokens = carried_map(cache)
    assert tokens is not None
    assert torch.equal(tokens.image, carried_map(whole).image)
    assert torch.equal(tokens.real, carried_map(whole).real)
    assert model._run.depth == 0


@torch.no_grad()
def test_a_roomy_layer_grows_as_a_dynamic_one(model):
    """Through more than its room, cropped and grown again, picked, copied."""
    config = model.hf_model.get_decoder().config
    roomy, dynamic = roomy_cache(model), DynamicCache(config=config)
    generator = torch.Generator().manual_seed(0)

    def grow(n_new: int, rows: int) -> None:
        keys, values = torch.randn(2, rows, 4, n_new, 8, generator=generator).unbind(0)
        for cache in (roomy, dynamic):
            cache.update(keys, values, 0)

    def same() -> None:
        assert torch.equal(roomy.layers[0].keys, dynamic.layers[0].keys)
        assert torch.equal(roomy.layers[0].values, dynamic.layers[0].values)

    assert isinstance(roomy.layers[0], RoomyLayer)
    for n_new in (1, 30, 1, 1, 90, 1):
        grow(n_new, 1)
        same()
    for cache in (roomy, dynamic):
        cache.crop(-20)
    kept = copy.deepcopy(roomy)
    before = roomy.layers[0].keys.clone()
    grow(3, 1)
    same()
    assert torch.equal(kept.layers[0].keys, before)
    for cache in (roomy, dynamic):
        cache.batch_select_indices(torch.tensor([0, 0, 0]))
    grow(1, 3)
    same()
    for cache in (roomy, dynamic):
        cache.batch_select_indices(torch.tensor([2, 1]))
    grow(70, 2)
    same()


@torch.no_grad()
def test_a_forward_that_fails_while_filling_leaves_the_cache_as_it_fell(model, inputs):
    def fail(*_):
        raise ZeroDivisionError

    handle = model.hf_model.get_decoder().layers[1].register_forward_pre_hook(fail)
    cache = roomy_cache(model)
    with pytest.raises(ZeroDivisionError):
        fill(model, cache, **inputs)
    handle.remove()
    assert all(layer.on_filled is None for layer in cache.layers)
    assert model._run.depth == 0
    assert torch.isfinite(model(**inputs)).all()
