"""Head masking against zeroed columns of o_proj."""

from __future__ import annotations

import copy

import pytest
import torch

from rvelens.hooks import head_mask_hooks


@pytest.mark.parametrize("heads", [{1: [0, 3]}, {0: [7], 2: [1, 2, 5]}, {1: []}])
def test_masking_equals_zeroing_columns_of_o_proj(model, plain, inputs, heads):
    cut = copy.deepcopy(plain)
    for layer, some in heads.items():
        attention = cut.get_decoder().layers[layer].self_attn
        for head in some:
            columns = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            attention.o_proj.weight.data[:, columns] = 0
    options = {"max_new_tokens": 5, "do_sample": False}
    with torch.no_grad(), model.hooks(head_mask_hooks(heads)):
        # Every position, not only the last one.
        torch.testing.assert_close(model(**inputs), cut(**inputs).logits, rtol=0, atol=1e-5)
        assert torch.equal(model.generate(**inputs, **options), cut.generate(**inputs, **options))


def test_a_negative_layer_is_refused():
    with pytest.raises(ValueError, match="layer -1 is negative"):
        head_mask_hooks({-1: [0]})
