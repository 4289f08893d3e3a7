"""Regions given by hand, and the injected fault."""

from __future__ import annotations

import pytest
import torch

from rvelens.hooks import dilution_hooks, region_hooks

SCORES = "blocks.1.attn.hook_attn_scores"


def scores_under(model, inputs, hooks):
    """Scores of layer 1 as the given hooks leave them."""
    seen = {}

    def look(scores, hook):
        seen["scores"] = scores.clone()

    with torch.no_grad(), model.hooks([*hooks, (SCORES, look)]):
        model(**inputs)
    return seen["scores"][:, :, 0]


def test_only_the_region_is_raised(model, inputs):
    n_image = model.token_map(inputs).n_image
    region = torch.zeros(3, max(n_image), dtype=torch.bool)
    region[0, 2] = region[1, 0] = region[1, 5] = True
    before, after = (
        scores_under(model, inputs, hooks) for hooks in ([], region_hooks(region, [1], beta=0.5))
    )
    changed = before != after
    for row in range(3):
        image = torch.nonzero(inputs["input_ids"][row] == model.image_token_id).flatten()
        expected = torch.zeros(before.shape[-1], dtype=torch.bool)
        expected[image[region[row]]] = True
        assert torch.equal(changed[row].any(0), expected)
        torch.testing.assert_close(
            after[row][:, expected],
            before[row][:, expected] + 0.5 * before[row][:, expected].abs(),
        )


def test_a_region_of_another_batch_is_refused(model, inputs):
    hooks = region_hooks(torch.ones(2, 4, dtype=torch.bool), [1])
    with pytest.raises(ValueError, match=r"a region of shape \(2, 4\)"), model.hooks(hooks):
        model(**inputs)
    with pytest.raises(ValueError, match=r"beta=-1\.0"):
        region_hooks(torch.ones(2, 4, dtype=torch.bool), [1], beta=-1.0)


def test_dilution_scales_and_lowers_image_scores_alone(model, inputs):
    before, after = (
        scores_under(model, inputs, hooks) for hooks in ([], dilution_hooks([1], 0.5, -2.0))
    )
    image = (inputs["input_ids"] == model.image_token_id)[:, None].expand_as(before)
    torch.testing.assert_close(after[image], before[image] * 0.5 - 2)
    assert torch.equal(after[~image], before[~image])
