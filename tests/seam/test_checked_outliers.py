"""The self-check sees an edit next to numbers that are a thousand times as large as the others."""

from __future__ import annotations

import pytest
import torch
from family_cases import hooked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_outliers_hide_no_edit(dtype):
    """Real language models have such numbers in the stream; all layers can be hooked all the same."""
    model = hooked("llava")
    decoder = model.hf_model.get_decoder()
    with torch.no_grad():
        # Numbers of the stream that the last norm leaves far above the others.
        decoder.norm.weight[:2] *= 1000
    cast = decoder.to(dtype)
    assert model._seam.check_layers(cast) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_that_reaches_nothing_is_seen_next_to_outliers(dtype):
    model = hooked("llava")
    decoder = model.hf_model.get_decoder()
    with torch.no_grad():
        decoder.norm.weight[:2] *= 1000
        decoder.layers[1].self_attn.o_proj.weight.zero_()
    problems = model._seam.check_layers(decoder.to(dtype))
    assert {n: p.reason for n, p in problems.items()} == {
        1: "what its attention function returns does not change the logits"
    }
