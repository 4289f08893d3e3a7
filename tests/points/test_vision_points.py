"""Points of the vision tower, against plain torch hooks and the tower's own eager attention."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, batch, hooked
from plain_hooks import Places, halved, recording, tower_blocks
from tiny_models import build

SEVERAL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # attention once an image, or once a window
NAMES = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out",
         "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z")  # fmt: skip
REFUSED = {"internvl": {"hook_attn_out", "hook_mlp_out"}}


def of(name):
    return f"vision.blocks.0.{name}"


def places(hf_model):
    heads = hf_model.get_encoder(modality="image").config
    n = getattr(heads, "num_attention_heads", None) or heads.num_heads
    return Places(tower_blocks(hf_model)[0], n, n)


def close(a, b, atol=1e-4):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_points_of_the_tower(name):
    model = hooked(name)
    inputs = batch(model)
    plain, _ = build(name)
    unhooked = plain(**inputs).logits
    points = [n for n in NAMES if n not in REFUSED.get(name, ())]
    if name in SEVERAL:
        points.remove("attn.hook_z")
    logits, cache = model.run_with_cache(**inputs, names_filter=[of(n) for n in points])
    assert torch.equal(logits, unhooked)
    for point in points:
        kept = []
        handles = places(plain).put(point, recording(kept))
        plain(**inputs)
        close(cache[of(point)], torch.cat(kept), 1e-6)
        for handle in handles:
            handle.remove()
        with model.hooks([(of(point), lambda x, hook: halved(x))]):
            ours = model(**inputs)
        handles = places(plain).put(point, halved)
        theirs = plain(**inputs).logits
        for handle in handles:
            handle.remove()
        close(ours, theirs)
        assert (ours - unhooked).abs().max() > 1e-5, point
    assert torch.equal(model(**inputs), unhooked)


@pytest.mark.parametrize("name", [n for n in CASES if n not in SEVERAL])
@torch.no_grad()
def test_patterns_are_those_of_eager_attention(name):
    model = hooked(name)
    inputs = batch(model)
    eager, _ = build(name)
    eager.get_encoder(modality="image").set_attn_implementation("eager")
    weights = []
    attention = places(eager).attention
    attention.register_forward_hook(lambda m, a, o: weights.append(o[1]))
    eager(**inputs)
    _, cache = model.run_with_cache(**inputs, names_filter=of("attn.hook_pattern"))
    pattern = cache[of("attn.hook_pattern")]
    assert pattern.shape[2] == pattern.shape[3]  # all rows, under query_rows="last" too
    close(pattern, weights[0], 1e-5)
    with model.hooks([(of("attn.hook_pattern"), lambda x, hook: torch.ones_like(x) / x.shape[-1])]):
        changed = model(**inputs)
    assert (changed - model(**inputs)).abs().max() > 1e-5


@pytest.mark.parametrize("name", SEVERAL)
@torch.no_grad()
def test_attention_by_pieces_is_refused(name):
    model = hooked(name)
    inputs = batch(model)
    message = r"cannot be shown exactly, since it calls its attention function \d+ times"
    for point in ("attn.hook_pattern", "attn.hook_z", "attn.hook_rot_q"):
        with (
            pytest.raises(ValueError, match=message),
            model.hooks([(of(point), lambda x, hook: None)]),
        ):
            model(**inputs)
    assert torch.equal(model(**inputs), model.hf_model(**inputs).logits)


@torch.no_grad()
def test_scaled_branches_of_a_tower_are_refused():
    model = hooked("internvl")
    for point in ("hook_attn_out", "hook_resid_mid"):
        with (
            pytest.raises(ValueError, match=r"InternVLVisionModel cannot be shown exactly, since"),
            model.hooks([(of(point), lambda x, hook: None)]),
        ):
            model(**batch(model))


@torch.no_grad()
def test_nan_of_a_tower_is_named(model, inputs):
    with (
        pytest.raises(ValueError, match=r"vision\.blocks\.0\.hook_mlp_out is not finite"),
        model.hooks([(of("hook_mlp_out"), lambda x, hook: x / 0)]),
    ):
        model(**inputs)


def test_gradients_of_a_tower(model, inputs):
    names = [of("hook_resid_mid"), of("attn.hook_pattern"), of("hook_resid_post")]
    _, cache = model.run_with_cache(**inputs, names_filter=names, incl_bwd=True, return_type="loss")
    for name in names:
        assert cache[f"{name}_grad"].shape == cache[name].shape
        assert cache[f"{name}_grad"].abs().max() > 0
