"""Hooks of one's own: what an edit of masked keys does, and what the helpers spare its writer."""

from __future__ import annotations

import pytest
import torch
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import HookedLVLM
from rvelens.hooks import LastRowHook, tokens_of, visible_image

LAYER = 1
SCORES, PATTERN = f"blocks.{LAYER}.attn.hook_attn_scores", f"blocks.{LAYER}.attn.hook_pattern"


def on_image(scores, hook):
    """S + |S| on every image token, masked or not."""
    image = tokens_of(hook).image_keys(scores.shape[-1], scores.device)[:, None, None]
    return torch.where(image, scores + scores.abs(), scores)


def on_visible(scores, hook):
    """The same, but for masked keys."""
    hidden = scores == torch.finfo(scores.dtype).min
    return torch.where(hidden, scores, on_image(scores, hook))


class Boost(LastRowHook):
    """The same, for the last row alone."""

    def edited_row(self, row, tokens):
        return torch.where(visible_image(row, tokens)[:, None], row + row.abs(), row)


@torch.no_grad()
def patterns(model, hook, rows):
    model.query_rows = rows
    inputs = model.prepare(IMAGES, QUESTIONS)
    with model.hooks([(SCORES, hook)] if hook else []):
        _, cache = model.run_with_cache(**inputs, names_filter=[SCORES, PATTERN])
    return inputs, cache[SCORES], cache[PATTERN]


def test_an_edit_of_masked_keys_leaves_them_hidden(model):
    _, plain, _ = patterns(model, None, "all")
    hidden = plain == torch.finfo(plain.dtype).min
    inputs, edited, pattern = patterns(model, on_image, "all")
    image = (inputs["input_ids"] == model.image_token_id)[:, None, None].expand_as(hidden)
    assert int((hidden & image).sum()) > 100
    assert (edited[hidden & image] == 0).all()  # exactly: the lowest number plus its size
    real = inputs["attention_mask"].bool()[:, None, :, None]  # rows of padding see padding only
    assert (pattern[hidden & real] == 0).all()
    _, careful, expected = patterns(model, on_visible, "all")
    assert torch.equal(careful[~hidden], edited[~hidden])
    assert torch.equal(pattern[(~hidden) & real], expected[(~hidden) & real])


def test_a_hook_may_unmask_where_the_model_is_told_so(model):
    _, plain, _ = patterns(model, None, "all")
    hidden = plain == torch.finfo(plain.dtype).min
    model.enforce_mask = False
    inputs, _, pattern = patterns(model, on_image, "all")
    image = (inputs["input_ids"] == model.image_token_id)[:, None, None].expand_as(hidden)
    assert pattern[hidden & image].max() > 0.01
    _, boosted, pattern = patterns(model, Boost(), "all")  # hooks of the package keep to the mask
    assert torch.equal(boosted == torch.finfo(boosted.dtype).min, hidden)


def test_the_last_row_is_edited_alone_and_alike_whatever_rows_are_shown(model):
    _, plain, _ = patterns(model, None, "all")
    _, every, _ = patterns(model, Boost(), "all")
    _, last, _ = patterns(model, Boost(), "last")
    _, expected, _ = patterns(model, on_visible, "all")
    assert torch.equal(every[:, :, :-1], plain[:, :, :-1])
    assert torch.equal(every[:, :, -1], expected[:, :, -1])  # padding is on the left
    torch.testing.assert_close(last[:, :, 0], every[:, :, -1], rtol=0, atol=1e-5)
    assert (every - plain).abs().max() > 0.1


@pytest.mark.parametrize("rows", ["last", "all"])
def test_a_sliding_window_hides_image_tokens_from_the_last_row_too(rows):
    hf_model, processor = build("gemma3")
    model = HookedLVLM(hf_model, processor)
    _, plain, _ = patterns(model, None, rows)
    _, edited, pattern = patterns(model, on_image, rows)
    hidden = plain[:, :, -1] == torch.finfo(plain.dtype).min
    assert (hidden & (edited[:, :, -1] == 0)).any()
    assert (pattern[:, :, -1][hidden] == 0).all()
    _, boosted, pattern = patterns(model, Boost(), rows)
    assert torch.equal(boosted[:, :, -1] == torch.finfo(boosted.dtype).min, hidden)
    assert (pattern[:, :, -1][hidden] == 0).all()
    assert not torch.equal(boosted, plain)
