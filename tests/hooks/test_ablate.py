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


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_of_the_last_row_touches_no_other(model, inputs, side):
    """In a whole forward the rows before the last real token stay, on whichever side padding is."""
    from rvelens.model.replay import prefill

    if side == "right":
        order = inputs["attention_mask"].argsort(dim=1, descending=True, stable=True)
        for name in ("input_ids", "attention_mask"):
            inputs[name] = inputs[name].gather(1, order)
    mask = inputs["attention_mask"]
    last = (mask * torch.arange(mask.shape[1])).amax(dim=1)
    point, seen = "blocks.1.attn.hook_z", {}

    def look(z, hook):
        seen.setdefault("z", []).append(z.clone())

    hooks = head_mask_hooks({1: [2, 5]}, rows="last")
    with model.hooks([(point, look), *hooks, (point, look)]):
        model(**inputs)
    before, after = seen["z"]
    expected = before.clone()
    for sample, row in enumerate(last.tolist()):
        expected[sample, row, [2, 5]] = 0
    assert torch.equal(after, expected)
    if side == "left":
        with model.hooks(hooks):
            whole = model(**inputs)[:, -1]
        replayed = prefill(model, inputs).replay_each([[], hooks])[:, 1]
        torch.testing.assert_close(replayed, whole, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="rows='first': expected 'all' or 'last'"):
        head_mask_hooks({1: [2]}, rows="first")
