"""Every kind of edit at every point, and what hooks that only look leave as it is."""

from __future__ import annotations

from contextlib import suppress

import pytest
import tiny_decoders
import torch
from family_cases import CASES, batch, hooked
from plain_hooks import halved
from tiny_decoders import DECODERS
from tiny_models import build as build_family

from rvelens import HookedLVLM

PRECISIONS = (torch.bfloat16, torch.float16, torch.float64)


def half(x):
    return slice(0, max(x.shape[-1] // 2, 1))


def in_place(x, hook):
    x[..., half(x)] *= 0.5


def by_data(x, hook):
    x.data[..., half(x)] *= 0.5


def by_numpy(x, hook):
    x.detach().numpy()[..., half(x)] *= 0.5


def returned(x, hook):
    x = x.clone()
    in_place(x, hook)
    return x


def look(x, hook):
    return None


def load(name):
    """A wrapped model that shows every row, and its inputs."""
    if name in CASES:
        model = hooked(name)
        inputs = dict(batch(model))
    else:
        hf_model, inputs = tiny_decoders.build(name)
        model = HookedLVLM.from_pretrained(hf_model)
    model.query_rows = "all"
    return model, inputs


def points_of(model):
    """The points of the model, of a layer and of a block of the tower that can be shown."""
    layer = f"blocks.{model.attention_layers[-1]}."
    decoder = model.hf_model.get_decoder()
    for name in model.hook_dict:
        chosen = name.startswith((layer, "vision.blocks.0.")) or "blocks." not in name
        if chosen and model._seam.reason(decoder, name) is None:
            yield name


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, *DECODERS])
def test_every_kind_of_edit_counts(name):
    model, inputs = load(name)
    with torch.no_grad():
        plain = model(**inputs)
    for point in points_of(model):
        with suppress(ValueError), torch.inference_mode():  # points that the tower refuses
            assert torch.equal(model.run_with_hooks(**inputs, fwd_hooks=[(point, look)]), plain)
            expected = model.run_with_hooks(**inputs, fwd_hooks=[(point, returned)])
            assert not torch.equal(expected, plain), point
            for edit in (in_place, by_data, by_numpy):
                edited = model.run_with_hooks(**inputs, fwd_hooks=[(point, edit)])
                assert torch.equal(edited, expected), (point, edit)
    with torch.no_grad():
        assert torch.equal(model(**inputs), plain)


# Their rows are computed anew where gradients pass, see `query_rows`.
OPENED = ("hook_attn_scores", "hook_pattern")


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3", "blip_2", "cohere2_vision"])
def test_gradients_reach_what_a_hook_stored(name):
    model, inputs = load(name)
    plain = model(**inputs).detach()
    for point in points_of(model):
        stored, gradients = [], []

        def store(x, hook, stored=stored):
            x.retain_grad()
            stored.append((x, x.detach().clone()))

        def store_gradient(x, hook, gradients=gradients):
            gradients.append(x.clone())

        with suppress(ValueError):
            with model.hooks([(point, store)]):
                logits = model(**inputs)
            logits[:, -1].pow(2).sum().backward()
            with model.hooks(bwd_hooks=[(point, store_gradient)]):
                model(**inputs)[:, -1].pow(2).sum().backward()
            assert point.endswith(OPENED) or torch.equal(logits.detach(), plain), point
            (x, before), *_ = stored
            assert torch.equal(x.detach(), before), point
            assert x.grad is not None, point
            torch.testing.assert_close(x.grad, gradients[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llava", "gemma3", "blip_2"])
def test_gradients_of_weights_are_those_of_the_plain_model(name):
    model, inputs = load(name)
    weights = dict(model.hf_model.named_parameters())
    layer = model.attention_layers[-1]
    model(**inputs)[:, -1].sum().backward()
    expected = {n: w.grad.clone() for n, w in weights.items() if w.grad is not None}
    for point in ("attn.hook_result", "ln1.hook_scale", "attn.hook_q", "hook_resid_mid"):
        model.hf_model.zero_grad()
        with model.hooks([(f"blocks.{layer}.{point}", look)]):
            model(**inputs)[:, -1].sum().backward()
        for n, gradient in expected.items():
            torch.testing.assert_close(weights[n].grad, gradient, atol=1e-4, rtol=1e-3)


def refused(hf_model):
    sources = HookedLVLM.from_pretrained(hf_model)._seam.stream.locate()
    return {key for key, source in sources.items() if isinstance(source, str)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, *DECODERS])
@torch.no_grad()
def test_precision_and_large_activations_change_no_point(name):
    """Streams of trained models hold a few numbers that are thousands of times larger."""
    builder = build_family if name in CASES else tiny_decoders.build
    expected = refused(builder(name)[0])
    for dtype in (torch.float32, *PRECISIONS[:2]):
        for large in (False, True):
            hf_model = builder(name)[0]
            if large:
                hf_model.get_decoder().get_input_embeddings().weight[:, 3] = 50.0
            # Complex buffers stay: in bfloat16 they would lose their imaginary part.
            hf_model._apply(lambda x: x.to(dtype) if x.is_floating_point() else x)  # noqa: B023
            assert refused(hf_model) == expected, (dtype, large)


@pytest.mark.parametrize("dtype", PRECISIONS)
@torch.no_grad()
def test_reads_and_edits_in_other_precisions(dtype):
    model = hooked("llava")
    model.hf_model.to(dtype)
    inputs = batch(model)
    logits, cache = model.run_with_cache(**inputs)
    assert torch.equal(logits, model.hf_model(**inputs).logits)
    pre, attn, mid, mlp, post = (
        cache[n, 1] for n in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    assert pre.dtype is dtype
    assert torch.equal(pre + attn, mid)
    assert torch.equal(mid + mlp, post)
    handle = (
        model.hf_model.get_decoder()
        .layers[1]
        .mlp.register_forward_hook(lambda module, args, output: halved(output))
    )
    expected = model.hf_model(**inputs).logits
    handle.remove()
    edits = [("blocks.1.hook_mlp_out", lambda x, hook: halved(x))]
    assert torch.equal(model.run_with_hooks(**inputs, fwd_hooks=edits), expected)
    # A norm that computes in float32 divides by no float64 scale.
    scale = ["ln1.hook_scale"] if dtype != torch.float64 else []
    for point in ("attn.hook_result", "attn.hook_rot_k", *scale):
        edits = [(f"blocks.1.{point}", lambda x, hook: x * 0.5)]
        assert not torch.equal(model.run_with_hooks(**inputs, fwd_hooks=edits), logits)


@torch.no_grad()
def test_points_under_autocast():
    model, inputs = load("llava")
    with torch.autocast("cpu", torch.bfloat16):
        plain = model.hf_model(**inputs).logits
        for point in points_of(model):
            assert torch.equal(model.run_with_hooks(**inputs, fwd_hooks=[(point, look)]), plain)
            edited = model.run_with_hooks(**inputs, fwd_hooks=[(point, returned)])
            assert edited.dtype is plain.dtype
            assert not torch.equal(edited, plain), point


@torch.no_grad()
def test_nan_of_the_model_is_no_edit(model, inputs):
    model.run_with_cache(**inputs)  # which locates the points
    layer = model.hf_model.get_decoder().layers[2]
    layer.mlp.register_forward_hook(lambda module, args, output: output / 0 * 0)
    logits = model.run_with_hooks(**inputs, fwd_hooks=[("blocks.2.hook_mlp_out", look)])
    assert bool(logits.isnan().all())


@torch.no_grad()
def test_embeddings_of_the_caller_stay_as_they_are(model, inputs):
    embeds = model.hf_model.get_input_embeddings()(inputs["input_ids"])
    before = embeds.clone()
    given = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    for point in ("hook_embed", "blocks.0.hook_resid_pre"):
        for stop in ({}, {"stop_at_layer": 0}, {"stop_at_layer": 1}):
            with model.hooks([(point, in_place)]):
                model(**given, **stop)
            assert torch.equal(embeds, before)


def test_a_refused_point_keeps_no_torch_hook():
    model = HookedLVLM.from_pretrained(tiny_decoders.build("cohere2_vision")[0])
    point = model.hook_dict["blocks.0.hook_resid_mid"]
    with pytest.raises(ValueError, match=r"blocks\.0\.hook_resid_mid of \w+ cannot be shown"):
        point.register_forward_hook(lambda *args: None)
    assert not point.in_use
