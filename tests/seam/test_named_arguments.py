"""Arguments count by whatever means they are given: by name, by position, as tensors or as arrays."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tiny_decoders
import torch
from family_cases import CASES, batch, hooked
from tiny_decoders import DECODERS

from rvelens import HookedLVLM


def model_of(name):
    """A wrapped model and inputs of its forward."""
    if name in CASES:
        model = hooked(name)
        return model, dict(batch(model))
    hf_model, inputs = tiny_decoders.build(name)
    return HookedLVLM(hf_model), dict(inputs)


def by_position(hf_model, inputs):
    """Arguments up to the last one that tells where the image is; the rest by name."""
    names = list(inspect.signature(hf_model.forward).parameters)
    needed = [n for n in ("input_ids", "pixel_values", "attention_mask") if n in inputs]
    first = names[: max(map(names.index, needed)) + 1]
    others = {name: x for name, x in inputs.items() if name not in first}
    return [inputs.get(name) for name in first], others


@torch.no_grad()
@pytest.mark.parametrize("name", [*CASES, *DECODERS])
def test_a_forward_by_position_is_the_one_by_name(name):
    model, inputs = model_of(name)
    args, others = by_position(model.hf_model, inputs)
    hooks = [(f"blocks.{model.attention_layers[-1]}.attn.hook_z", lambda z, hook: z * 2)]
    with model.hooks(hooks):
        expected = model(**inputs)
        counts = model.tokens.n_image
        got = model(*args, **others)
        assert torch.equal(got, expected)
        assert model.tokens.n_image == counts
        assert min(counts) > 0
        model.hf_model(*args, **others)
        assert model.tokens.n_image == counts


@torch.no_grad()
def test_sizes_of_images_may_be_arrays():
    model = hooked("llava_next")
    inputs = batch(model)
    expected = model(**inputs)
    sizes = np.array(inputs["image_sizes"])
    assert torch.equal(model(**{**inputs, "image_sizes": sizes}), expected)
    assert min(model.tokens.n_image) > 0


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_ids_alone_are_ids(name):
    """InstructBLIP's forward takes pixels first."""
    model = hooked(name)
    ids = torch.randint(8, 30, (2, 7))
    if name == "instructblip":
        pytest.skip("its forward needs an image")
    assert torch.equal(model(ids), model(input_ids=ids))
