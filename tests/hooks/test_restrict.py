"""Hooks under conditions, against hooks that count their calls and literal edits of each element."""

from __future__ import annotations

import pytest
import torch
from family_cases import batch, generate, hooked, profile_of

from rvelens.hooks import (
    ars_caching_hooks,
    head_mask_hooks,
    mask_recording_hooks,
    pai_hooks,
    region_hooks,
    restrict,
    rve_hooks,
    vaf_hooks,
)
from rvelens.hooks.restrict import parse_steps
from rvelens.model.replay import can_replay, check_replayable, prefill
from rvelens.model.side_by_side import edits_last_row

pytestmark = pytest.mark.slow

LAYERS = [0, 2]
STATIC = {"cache_implementation": "static", "disable_compile": True}
INSIDE = {
    "prefill": [1], "decode": [2, 3, 4, 5, 6], "3-": [3, 4, 5, 6], "2-4": [2, 3, 4], "5": [5],
}  # fmt: skip


def pai(model):
    return pai_hooks(model.n_layers, LAYERS, alpha=0.9)


def vaf(model):
    return vaf_hooks(model.n_layers, LAYERS, enhance=1.5, suppress=0.5)


def heads(model):
    return head_mask_hooks({0: [1], 2: [3, 4]})


def resid(model):
    def doubled(x, hook):
        return x * 2

    return [("blocks.1.hook_resid_mid", doubled)]


def in_place(model):
    def scaled(x, hook):
        x *= 0.5

    return [("blocks.1.attn.hook_attn_scores", scaled)]


def counting(hooks, inside):
    """The same hooks, called in those forwards of a generation alone, by their own count."""

    def counted(one):
        calls = 0

        def hook_function(x, hook):
            nonlocal calls
            calls += 1
            return one(x, hook) if calls in inside else None

        return hook_function

    return [(name, counted(one)) for name, one in hooks]


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "how"),
    [*((make, {}) for make in (pai, vaf, heads, resid, in_place)), (pai, STATIC), (resid, STATIC)],
)
@pytest.mark.parametrize("steps", INSIDE)
def test_steps_are_those_that_a_count_finds(model, inputs, make, steps, how):
    model.query_rows = "all" if make is vaf else "last"
    hooks = make(model)
    with model.hooks(restrict(hooks, steps=steps)):
        ours = generate(model, inputs, output_logits=True, **how)
    with model.hooks(counting(hooks, INSIDE[steps])):
        expected = generate(model, inputs, output_logits=True, **how)
    assert torch.equal(ours.sequences, expected.sequences)
    for a, b in zip(ours.logits, expected.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)
    plain = generate(model, inputs, output_logits=True, **how)
    first = INSIDE[steps][0] - 1
    for n in range(first):
        torch.testing.assert_close(ours.logits[n], plain.logits[n], rtol=1e-5, atol=1e-5)
    assert (ours.logits[first] - plain.logits[first]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl", "instructblip"])
def test_steps_in_other_families(name):
    model = hooked(name)
    inputs = batch(model)
    with model.hooks(restrict(pai(model), steps="2-3")):
        ours = generate(model, inputs, output_logits=True)
    with model.hooks(counting(pai(model), [2, 3])):
        expected = generate(model, inputs, output_logits=True)
    for a, b in zip(ours.logits, expected.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_a_further_piece_of_prompt_counts_from_one_again(model, inputs):
    """As a turn of a conversation: its rows predict the first new token of the next answer."""
    turn = torch.tensor([[31, 32, 33]] * 3)
    calls = []

    def look(x, hook):
        calls.append(tuple(x.shape[:2]))

    mask = inputs["attention_mask"]
    with model.hooks(restrict([("blocks.2.attn.hook_z", look)], steps="prefill")):
        output = model.hf_model(**inputs, use_cache=True)
        for ids in (turn[:, :1], turn, turn[:, :1]):
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            cache = output.past_key_values
            output = model.hf_model(input_ids=ids, attention_mask=mask, past_key_values=cache)
    assert calls == [(3, inputs["input_ids"].shape[1]), (3, 3)]


def literal_pai(where, alpha):
    """PAI's edit of single elements: `where(sample, head, key)` says of which."""

    def hook_function(scores, hook):
        tokens = hook.ctx["tokens"]
        image = tokens.image_keys(scores.shape[-1], scores.device)
        scores = scores.clone()
        for b, h, k in torch.nonzero(image[:, None].expand(scores[:, :, -1].shape)).tolist():
            if where(b, h, k):
                scores[b, h, -1, k] += alpha * scores[b, h, -1, k].abs()
        return scores

    return hook_function


@torch.no_grad()
def test_heads_and_regions_are_single_elements(model, inputs):
    tokens = model.token_map(inputs)
    index, _ = tokens.image_index()
    region = torch.rand(index.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    chosen = [set(index[b][region[b]].tolist()) for b in range(3)]
    cases = {
        "heads": (restrict(pai(model), heads=[1, 6]), lambda b, h, k: h in (1, 6)),
        "region": (restrict(pai(model), region=region), lambda b, h, k: k in chosen[b]),
        "both": (
            restrict(pai(model), heads=[1, 6], region=region),
            lambda b, h, k: h in (1, 6) and k in chosen[b],
        ),
    }
    for hooks, where in cases.values():
        literal = [(name, literal_pai(where, 0.9)) for name, _ in hooks]
        with model.hooks(hooks):
            ours = generate(model, inputs, output_logits=True)
        with model.hooks(literal):
            expected = generate(model, inputs, output_logits=True)
        for a, b in zip(ours.logits, expected.logits, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@torch.no_grad()
def test_heads_by_layer_and_layers(model, inputs):
    hooks = restrict(pai(model), heads={2: [1], 1: [0]})
    assert [name for name, _ in hooks] == ["blocks.2.attn.hook_attn_scores"]
    assert hooks[0][1].heads == (1,)
    every = pai(model)
    assert restrict(every) == every
    assert restrict(every, layers=[0]) == every[:1]
    masked = restrict(head_mask_hooks({0: [1, 2]}), heads=[2])
    with model.hooks(masked):
        ours = model(**inputs)
    with model.hooks(head_mask_hooks({0: [2]})):
        torch.testing.assert_close(ours, model(**inputs), rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_side_by_side_and_alone_are_the_same(model, inputs):
    """Heads and regions run side by side; a condition on new tokens makes a hook run by itself."""
    rve = rve_hooks(profile_of(model), LAYERS, k=3, alpha=0.3, beta=3.0)
    n_image = max(model.token_map(inputs).n_image)
    region = torch.arange(n_image).expand(3, -1) < 5
    settings = [
        [], rve, restrict(rve, heads=[0, 3]), restrict(rve, region=region), restrict(rve, steps="2-"),
        restrict(pai(model), steps="prefill"), region_hooks(region, LAYERS),
    ]  # fmt: skip
    assert [edits_last_row(model, one) for one in settings] == [True] * 4 + [False] * 2 + [True]
    prefix = prefill(model, inputs)
    ids, first = prefix.generate_each(settings, max_new_tokens=5)
    for n, hooks in enumerate(settings):
        with model.hooks(hooks):
            alone = model.generate(
                **inputs, do_sample=False, max_new_tokens=5, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        torch.testing.assert_close(first[:, n], alone.logits[0], rtol=1e-5, atol=2e-5)
        new = alone.sequences[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(ids[:, n, : new.shape[1]], new), n


def test_a_point_with_every_row_of_the_prompt_is_no_replay(model):
    hooks = restrict(head_mask_hooks({0: [1]}, rows="last"), steps="decode")
    assert not can_replay(model, hooks)
    with pytest.raises(ValueError, match="sees every row of a prompt"):
        check_replayable(model, hooks)
    assert can_replay(model, restrict(head_mask_hooks({0: [1]}, rows="last"), heads=[1]))


@torch.no_grad()
def test_recorders_record_where_the_hook_is_at_work(model, inputs):
    calls = {}
    hooks = restrict(ars_caching_hooks([0], calls), steps="decode")
    with model.hooks(hooks):
        model(**inputs)
        assert calls == {}
    masks = {}
    rve = rve_hooks(profile_of(model), [1], k=3, alpha=0.3, steps="prefill")
    with model.hooks(mask_recording_hooks(rve, masks)):
        model(**inputs)
    plain = {}
    with model.hooks(
        mask_recording_hooks(rve_hooks(profile_of(model), [1], k=3, alpha=0.3), plain)
    ):
        model(**inputs)
    assert torch.equal(masks[1].target, plain[1].target)


def test_text_of_steps():
    assert [parse_steps(text) for text in ("all", "prefill", "decode", "3-", "3-7", "2")] == [
        (1, None), (1, 1), (2, None), (3, None), (3, 7), (2, 2),
    ]  # fmt: skip
    for text in ("", "0-", "-3", "4-3", "x", "1.5"):
        with pytest.raises(
            ValueError, match=r"steps '.*': expected all, prefill, decode, or numbers"
        ):
            parse_steps(text)


def test_what_cannot_be_restricted_is_refused(model):
    def nothing(x, hook):
        return None

    for name, options, said in (
        ("vision.blocks.0.hook_resid_post", {"steps": "2-"}, "runs while the image is read"),
        ("hook_image_features", {"steps": "2-"}, "runs while the image is read"),
        ("blocks.0.hook_resid_post", {"heads": [1]}, "has no axis of query heads"),
        ("blocks.0.attn.hook_k", {"heads": [1]}, "has no axis of query heads"),
        (
            "blocks.0.attn.hook_pattern",
            {"region": torch.ones(1, 4, dtype=torch.bool)},
            "has no scores of image tokens before the softmax",
        ),
        ("blocks.0.hook_resid_post", {"layers": [1]}, "no hook is left in these layers"),
        (lambda name: True, {"steps": "2-"}, "a filter of hook names cannot be restricted"),
    ):
        with pytest.raises(ValueError, match=said):
            restrict([(name, nothing)], **options)
    wrong = restrict(pai(model), heads=[99])
    with pytest.raises(ValueError, match=r"restricted to heads \[99\] of 8"), model.hooks(wrong):
        pass
