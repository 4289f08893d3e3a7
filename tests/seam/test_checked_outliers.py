"""The self-check sees an edit next to numbers that are a thousand times as large as the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_cases import hooked

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def with_outlier(model: Any) -> Any:
    """The decoder with a number of the stream that is large, and the same in every token and layer."""
    decoder = model.hf_model.get_decoder()
    with torch.no_grad():
        decoder.embed_tokens.weight[:, 0] = 1000
        for layer in decoder.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
    return decoder


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_outlier_hides_no_edit(dtype):
    """Real language models have such numbers in the stream; all layers can be hooked all the same."""
    model = hooked("llava")
    assert model._seam.check_layers(with_outlier(model).to(dtype)) == {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_layer_that_reaches_nothing_is_seen_next_to_an_outlier(dtype):
    model = hooked("llava")
    decoder = with_outlier(model)
    with torch.no_grad():
        decoder.layers[1].self_attn.o_proj.weight.zero_()
    problems = model._seam.check_layers(decoder.to(dtype))
    assert {n: p.reason for n, p in problems.items()} == {
        1: "what its attention function returns does not change the logits"
    }
