"""Points that a model does not have, or not exactly, are refused with the reason."""

from __future__ import annotations

import re

import pytest
import torch
from plain_hooks import halved
from tiny_decoders import DECODERS, build
from tiny_models import build as build_family

from rvelens import HookedLVLM

ALONE = "it has a single branch"
BESIDE = "its branches run side by side, with no sum between them"
NONE = "it has no projection of its own"
GATED = "the output projection does not get hook_z as it is"
SPLIT = "what it adds last is not the output of one of its modules"
MIDDLE = {"hook_resid_mid", "ln2.hook_scale"}
# By decoder: the points of its layers that are refused, by the reason of the first of them.
REFUSED = {
    "qwen3_5": {(n, "attn.hook_result"): GATED for n in (1, 3)},
    "minicpmv4_6": {(n, "attn.hook_result"): GATED for n in (1, 3)},
    "nemotron_h_omni": {
        (n, name): ALONE for n in range(6) for name in ("hook_resid_mid", "hook_mlp_out")
    },
    "mistral_large4": {(n, f"attn.hook_{p}"): NONE for n in range(4) for p in "kv"},
    "gemma4": {(n, "hook_mlp_out"): SPLIT for n in range(4)}
    | {(n, f"attn.hook_{p}"): NONE for n in (2, 3) for p in "kv"},
    "gemma4_moe": {(n, "attn.hook_v"): NONE for n in (1, 3)},
    "cohere2_vision": {(n, "hook_resid_mid"): BESIDE for n in range(4)},
    "aya_vision": {(n, "hook_resid_mid"): BESIDE for n in range(4)},
}


def look(x, hook):
    return None


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_what_is_refused_and_what_is_not(name):
    hf_model, inputs = build(name)
    model = HookedLVLM.from_pretrained(hf_model)
    refused = REFUSED.get(name, {})
    for (layer, point), reason in refused.items():
        whole = f"blocks.{layer}.{point}"
        message = rf"{whole} of \w+ cannot be shown exactly, since {re.escape(reason)}: expected"
        with pytest.raises(ValueError, match=message):
            model.add_hook(whole, look)
        with pytest.raises(ValueError, match=message):
            model.hook_dict[whole].add_hook(look)
    plain = model.hf_model(**inputs).logits
    logits, cache = model.run_with_cache(**inputs)
    assert torch.equal(logits, plain)
    for layer in range(model.n_layers):
        for point in ("hook_resid_mid", "hook_mlp_out"):
            known = f"blocks.{layer}.{point}" in cache.keys()  # noqa: SIM118
            assert known == ((layer, point) not in refused)
    check_sums(model, cache, refused)


def check_sums(model, cache, refused):
    """The sums that the points of a layer make, where it has them."""
    for layer in range(model.n_layers):
        at = {n: cache.cache_dict.get(f"blocks.{layer}.hook_{n}") for n in
              ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}  # fmt: skip
        if at["resid_mid"] is not None:
            if at["attn_out"] is not None:
                close(at["resid_pre"] + at["attn_out"], at["resid_mid"])
            if at["mlp_out"] is not None:
                close(at["resid_mid"] + at["mlp_out"], at["resid_post"])
        elif at["attn_out"] is not None:
            mlp = 0 if at["mlp_out"] is None else at["mlp_out"]
            close(at["resid_pre"] + at["attn_out"] + mlp, at["resid_post"])
    if "hook_embed" in cache.keys():  # noqa: SIM118
        close(cache["hook_embed"], cache["resid_pre", 0])


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_an_edit_of_a_decoder_is_that_of_a_plain_torch_hook(name):
    hf_model, inputs = build(name)
    model = HookedLVLM.from_pretrained(hf_model)
    plain, _ = build(name)
    parents = [m for m in plain.get_decoder().modules() if hasattr(m, "layers")]
    block = parents[0].layers[1]

    def edit(module, args, output):
        first = halved(output[0] if isinstance(output, tuple) else output)
        return (first, *output[1:]) if isinstance(output, tuple) else first

    before = model(**inputs)
    with model.hooks([("blocks.1.hook_resid_post", lambda x, hook: halved(x))]):
        ours = model(**inputs)
    handle = block.register_forward_hook(edit)
    theirs = plain(**inputs).logits
    handle.remove()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (ours - before).abs().max() > 1e-3
    sums = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out")
    points = [p for p in sums if f"blocks.1.{p}" in model.hook_dict]
    for point in points:
        if (1, point) in REFUSED.get(name, {}):
            continue
        seen = {}

        def keep(x, hook, seen=seen):
            seen[hook.name] = x.clone()

        names = [f"blocks.1.hook_{n}" for n in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")]  # fmt: skip # noqa: E501
        names = [n for n in names if n in model.hook_dict]
        names = [n for n in names if (1, n.split(".")[2]) not in REFUSED.get(name, {})]
        edits = [(f"blocks.1.{point}", lambda x, hook: halved(x))]
        with model.hooks([*edits, *[(n, keep) for n in names]]):
            model(**inputs)
        cached = type("C", (), {"cache_dict": seen})()
        check_edited(cached.cache_dict, point)
    assert torch.equal(model(**inputs), before)


def check_edited(seen, point):
    """Behind an edit of a branch or of the middle, the block goes on with the edited tensor."""
    at = {n.split("hook_")[1]: x for n, x in seen.items()}
    if "resid_mid" in at and "attn_out" in at and point != "hook_resid_mid":
        close(at["resid_pre"] + at["attn_out"], at["resid_mid"])
    if "resid_mid" in at and "mlp_out" in at:
        close(at["resid_mid"] + at["mlp_out"], at["resid_post"])
    if "resid_mid" not in at and "attn_out" in at:
        whole = at["resid_pre"] + at["attn_out"] + at.get("mlp_out", 0)
        close(whole, at["resid_post"])


def scaled_branch(model):
    """A decoder whose attention is scaled before it is added, as in Granite and InternVL's tower."""
    for layer in model.get_decoder().layers:
        forward = layer.forward

        def scaled(hidden_states, layer=layer, forward=forward, **kwargs):
            residual = hidden_states
            x, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
            x = residual + 0.5 * x
            return x + layer.mlp(layer.post_attention_layernorm(x))

        layer.forward = scaled
    return model


@torch.no_grad()
def test_a_branch_that_is_scaled_before_it_is_added_is_refused():
    hf_model, processor = build_family("llava")
    model = HookedLVLM.from_pretrained(scaled_branch(hf_model), processor=processor)
    message = "since what it adds to its input is not the output of one of its modules: expected"
    for point in ("hook_attn_out", "hook_resid_mid", "hook_mlp_out"):
        with pytest.raises(ValueError, match=message):
            model.add_hook(f"blocks.0.{point}", look)
    model.add_hook("blocks.0.hook_resid_post", look)


def copied_middle(model):
    """A decoder that gives its second norm a copy of the stream."""
    for layer in model.get_decoder().layers:

        def copied(hidden_states, layer=layer, **kwargs):
            x, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
            x = hidden_states + x
            return x + layer.mlp(layer.post_attention_layernorm(x.clone()))

        layer.forward = copied
    return model


def test_a_middle_that_an_edit_does_not_reach_is_refused():
    hf_model, processor = build_family("llava")
    model = HookedLVLM.from_pretrained(copied_middle(hf_model), processor=processor)
    with pytest.raises(ValueError, match="since an edit of it does not reach the residual stream"):
        model.add_hook("blocks.0.hook_resid_mid", look)


def test_a_wrong_shape_and_nan_are_named(model, inputs):
    with (
        pytest.raises(
            ValueError, match=r"a hook on blocks\.1\.hook_resid_mid \(.*\) returned \(3,"
        ),
        model.hooks([("blocks.1.hook_resid_mid", lambda x, hook: x[..., :1])]),
        torch.no_grad(),
    ):
        model(**inputs)
    with (
        pytest.raises(ValueError, match=r"blocks\.1\.hook_mlp_out is not finite after its hooks"),
        model.hooks([("blocks.1.hook_mlp_out", lambda x, hook: x / 0)]),
        torch.no_grad(),
    ):
        model(**inputs)


def test_a_replaced_block_is_named(model, inputs):
    import copy

    layers = model.hf_model.get_decoder().layers
    with model.hooks([("blocks.1.hook_resid_pre", look)]), torch.no_grad():
        model(**inputs)
        mlp = layers[1].mlp
        with model.hooks([("blocks.1.hook_mlp_out", look)]):
            layers[1].mlp = copy.deepcopy(mlp)
            with pytest.raises(RuntimeError, match=r"hooks on blocks\.1\.hook_mlp_out did not run"):
                model(**inputs)
        layers[1].mlp = mlp


def test_unhooked_modules_carry_no_hooks(model, inputs):
    def hooks():
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        return {n: [len(getattr(m, k)) for k in kinds] for n, m in model.hf_model.named_modules()}

    with torch.no_grad():
        model(**inputs)  # transformers puts hooks of its own
        before = hooks()
        model.run_with_cache(**inputs)
        model.run_with_cache(**inputs, names_filter=lambda n: n.startswith("vision."))
        with model.hooks([("blocks.1.hook_resid_mid", look)]):
            changed = {n for n, counts in hooks().items() if counts != before[n]}
            assert len(changed) == 1
    assert hooks() == before
    followed = {n for n, counts in before.items() if any(counts) and "vision" not in n}
    assert followed == {"", "model", "model.language_model"}  # "model" marks the visual tokens


def test_slices_of_positions(model, inputs):
    model.query_rows = "all"
    with torch.no_grad():
        _, whole = model.run_with_cache(**inputs)
        _, last = model.run_with_cache(**inputs, pos_slice=-1)
        for name in ("blocks.1.hook_resid_mid", "blocks.0.ln1.hook_scale"):
            assert torch.equal(last[name].squeeze(1), whole[name][:, -1])
        assert torch.equal(last["q", 1].squeeze(1), whole["q", 1][:, -1])
        with pytest.raises(ValueError, match=r"pos_slice of blocks\.1\.attn\.hook_rot_q, whose"):
            model.run_with_cache(**inputs, names_filter="blocks.1.attn.hook_rot_q", pos_slice=-1)


def test_image_features_without_a_map(model, inputs):
    embeds = model.hf_model.get_input_embeddings()(inputs["input_ids"])
    with (
        pytest.raises(ValueError, match="hook_image_features runs without a token map: expected"),
        model.hooks([("hook_image_features", look)]),
        torch.no_grad(),
    ):
        model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
