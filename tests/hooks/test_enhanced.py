"""What the recorder says was enhanced is what RVE enhanced."""

from __future__ import annotations

import pytest
import torch

from rvelens.hooks import head_mask_hooks, mask_recording_hooks, rve_hooks
from rvelens.hooks.enhanced import MaskRecorder

SCORES = "blocks.{}.attn.hook_attn_scores"


def forward(model, inputs, hooks):
    with torch.no_grad(), model.hooks(hooks):
        return model(**inputs)[:, -1]


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("max_entropy", [1.0, 0.86])
def test_the_target_is_what_was_edited(model, inputs, profile, denoise, max_entropy):
    how = {"k": 3, "alpha": 0.3, "denoise": denoise, "max_entropy": max_entropy}
    layers, cache, before, after = range(model.n_layers), {}, {}, {}

    def keep(where, layer):
        def hook(scores, hook):
            where[layer] = scores.clone()

        return (SCORES.format(layer), hook)

    hooks = mask_recording_hooks(rve_hooks(profile, layers, **how), cache)
    first = [keep(before, layer) for layer in layers]
    last = [keep(after, layer) for layer in layers]
    forward(model, inputs, first + hooks + last)
    image = model.token_map(inputs).image
    sure = [torch.ones(3).bool() if m.sure is None else m.sure for m in cache.values()]
    assert torch.stack(sure).all() == (max_entropy == 1.0)
    assert torch.stack(sure).any()
    for layer in layers:
        edited = (before[layer] != after[layer])[:, :, 0].any(dim=1)
        masks = cache[layer]
        assert not (edited & ~image).any()
        assert torch.equal(edited[image].view_as(masks.target), masks.target)
        assert torch.equal(masks.target.any(dim=1) | masks.removed.any(dim=1), sure[layer])
        assert masks.enhancing.any(dim=1).all()
        asked = masks.enhancing & sure[layer][:, None]
        assert torch.equal(masks.target | masks.removed, asked)
        assert not (masks.removed & ~masks.denoising).any()
        assert denoise or not masks.removed.any()
    assert any(masks.removed.any() for masks in cache.values()) == denoise


def test_recording_changes_nothing(model, inputs, profile):
    hooks = rve_hooks(profile, [1, 2], k=3, alpha=0.3)
    recorded = mask_recording_hooks(hooks, {})
    assert torch.equal(forward(model, inputs, hooks), forward(model, inputs, recorded))


def test_other_hooks_are_passed_on(profile):
    hooks = rve_hooks(profile, [1], k=3) + head_mask_hooks({1: [0]})
    recorded = mask_recording_hooks(hooks, {})
    assert [type(hook) for _, hook in recorded[:1]] == [MaskRecorder]
    assert recorded[1:] == hooks
