"""Every point of every family: read, edited, in generation and backward, against plain torch hooks."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

import pytest
import torch
from family_cases import CASES, batch, hooked
from plain_hooks import FUNCTION, HEADS, STREAM, edited, halved, recording
from tiny_models import build

from rvelens.seam.points import ROWS, rows_of

NAMES = (*STREAM, *HEADS, *FUNCTION)
LAYER = 1


every_family = pytest.mark.parametrize("name", CASES)


@cache
def model_of(name):
    """One wrapped model for all tests: none leaves a hook behind."""
    return hooked(name)


@cache
def plain_of(name):
    return build(name)[0]


@cache
def inputs_of(name):
    return dict(batch(model_of(name)))


def full(name, layer=LAYER):
    return f"blocks.{layer}.{name}"


@every_family
def test_every_row_of_the_table_is_a_point(name):
    model = model_of(name)
    expected = {row.name for row in rows_of("model")}
    for layer in range(model.n_layers):
        expected |= {full(row.name, layer) for row in rows_of("layer", "attention")}
    assert {n for n in model.hook_dict if not n.startswith("vision.")} == expected
    assert all(point.name == n for n, point in model.hook_dict.items())


@every_family
@torch.no_grad()
def test_what_is_read_is_what_plain_torch_hooks_read(name):
    model, inputs = model_of(name), inputs_of(name)
    plain = plain_of(name)
    points = [full(n, layer) for n in NAMES for layer in range(model.n_layers)]
    logits, cache = model.run_with_cache(**inputs, names_filter=points)
    assert torch.equal(logits, plain(**inputs).logits)
    for layer in range(model.n_layers):
        for together in ((*STREAM, *HEADS), *((name,) for name in FUNCTION)):
            kept = {point: [] for point in together}
            with ExitStack() as hooks:
                for point in together:
                    hooks.enter_context(edited(plain, layer, point, recording(kept[point])))
                plain(**inputs)
            for point in together:
                assert len(kept[point]) == 1, point
                close(cache[full(point, layer)], kept[point][0], 1e-5)


def close(a, b, atol=1e-4):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@every_family
@torch.no_grad()
def test_an_edit_is_the_edit_of_a_plain_torch_hook(name):
    model, inputs = model_of(name), inputs_of(name)
    plain = plain_of(name)
    unhooked = plain(**inputs).logits

    def in_place(x, hook):
        x[..., : x.shape[-1] // 2] *= 0.5

    for point in NAMES:
        with model.hooks([(full(point), lambda x, hook: halved(x))]):
            ours = model(**inputs)
        with model.hooks([(full(point), in_place)]):
            assert torch.equal(model(**inputs), ours), point
        with edited(plain, LAYER, point, halved):
            theirs = plain(**inputs).logits
        real = inputs["attention_mask"].bool()
        close(ours[real], theirs[real])
        assert (ours - unhooked)[real].abs().max() > 1e-3, point
    assert torch.equal(model(**inputs), unhooked)


@every_family
@torch.no_grad()
def test_sums(name):
    model, inputs = model_of(name), inputs_of(name)
    logits, cache = model.run_with_cache(**inputs)
    for layer in range(model.n_layers):
        pre, attn, mid, mlp, post = (
            cache[n, layer] for n in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        assert torch.equal(pre + attn, mid)
        assert torch.equal(mid + mlp, post)
    assert torch.equal(cache["hook_embed"], cache["resid_pre", 0])
    close(model.ln_final(cache["resid_post", -1]) @ model.W_U + model.b_U, logits)
    image = model.tokens.image
    # Embeddings may be scaled behind the point.
    features, embed = cache["hook_image_features"], cache["hook_embed"][image]
    assert features.shape == (int(image.sum()), model.cfg.d_model)
    factor = (embed * features).sum() / features.pow(2).sum()
    close(features * factor, embed)


@every_family
@torch.no_grad()
def test_results_are_the_heads_through_their_part_of_the_projection(name):
    model, inputs = model_of(name), inputs_of(name)
    points = [full("attn.hook_z"), full("attn.hook_result"), full("hook_attn_out")]
    _, cache = model.run_with_cache(**inputs, names_filter=points)
    z, result = cache["z", LAYER], cache["result", LAYER]
    attention = model.hf_model.get_decoder().layers[LAYER].self_attn
    weight = attention.o_proj.weight
    d = z.shape[-1]
    for head in range(model.n_heads):
        part = weight[:, head * d : (head + 1) * d]
        close(result[:, :, head], z[:, :, head] @ part.T, 1e-5)
    whole = attention.o_proj(z.flatten(-2))
    bias = 0 if attention.o_proj.bias is None else attention.o_proj.bias
    close(result.sum(dim=2) + bias, whole, 1e-5)
    without = full("attn.hook_result")

    def without_first(x, hook):
        x = x.clone()
        x[:, :, 0] = 0
        return x

    with model.hooks([(without, without_first)]):
        ours = model(**inputs)
    with model.hooks([(full("attn.hook_z"), without_first)]):
        close(ours, model(**inputs))


@every_family
@torch.no_grad()
def test_generation_with_an_edit_is_that_of_a_plain_torch_hook(name):
    model, inputs = model_of(name), inputs_of(name)
    plain = plain_of(name)
    options = {"max_new_tokens": 3, "do_sample": False, "output_logits": True}
    options["return_dict_in_generate"] = True
    for point in ("hook_resid_mid", "hook_mlp_out", "attn.hook_k", "attn.hook_rot_k"):
        lengths = []

        def hook(x, hook, lengths=lengths):
            lengths.append(x.shape[1])
            return halved(x)

        with model.hooks([(full(point), hook)]):
            ours = model.generate(**inputs, **options)
        with edited(plain, LAYER, point, halved):
            theirs = plain.generate(**inputs, **options)
        assert torch.equal(ours.sequences, theirs.sequences), point
        close(torch.stack(ours.logits), torch.stack(theirs.logits))
        n = lengths[0]
        keys = [20, 20] if name == "gemma3" else [n + 1, n + 2]  # a layer with a window of 20
        assert lengths[1:] == (keys if point.endswith("rot_k") else [1, 1])


@every_family
def test_gradients_are_those_of_plain_tensors(name):
    model, inputs = model_of(name), inputs_of(name)
    plain = plain_of(name)
    points = [full(n) for n in NAMES]
    loss, cache = model.run_with_cache(
        **inputs, names_filter=points, incl_bwd=True, return_type="loss"
    )
    text = model.tokens.text[:, 1:] & model.tokens.real[:, :-1]
    for point in (*STREAM, *FUNCTION, *HEADS):
        kept = []
        with edited(plain, LAYER, point, recording(kept)):
            logits = plain(**inputs).logits
        if point == "hook_resid_mid":
            continue  # which the plain model holds as a sum of two tensors
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
        )
        losses[text].mean().backward()
        close(loss.detach(), losses[text].mean().detach(), 1e-5)
        close(cache[full(point) + "_grad"], kept[0].grad, 1e-5)
        plain.zero_grad()
    # Both branches and the stream itself begin at the stream.
    mid, post = (cache[f"{full(n)}_grad"] for n in ("hook_resid_mid", "hook_resid_post"))
    assert not torch.equal(mid, post)
    assert mid.shape == post.shape


@every_family
@torch.no_grad()
def test_image_features_are_edited_where_the_decoder_gets_them(name):
    model, inputs = model_of(name), inputs_of(name)
    plain = plain_of(name)
    image = model.token_map(inputs).image

    def edit_embeds(module, args, kwargs):
        embeds = kwargs["inputs_embeds"].clone()
        embeds[image] = halved(embeds[image])
        return args, {**kwargs, "inputs_embeds": embeds}

    with model.hooks([("hook_image_features", lambda x, hook: halved(x))]):
        ours = model(**inputs)
        generated = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    handle = plain.get_decoder().register_forward_pre_hook(edit_embeds, with_kwargs=True)
    theirs = plain(**inputs).logits
    handle.remove()
    close(ours, theirs, 1e-5)
    assert generated.shape[0] == 3
    assert (ours - model(**inputs)).abs().max() > 1e-3


@every_family
@torch.no_grad()
def test_scales_are_what_norms_divide_by(name):
    model, inputs = model_of(name), inputs_of(name)
    points = ["ln_final.hook_scale", full("ln1.hook_scale"), full("ln2.hook_scale")]
    points += [full("hook_resid_pre"), full("hook_resid_mid"), full("hook_resid_post", -1 % 3)]
    _, cache = model.run_with_cache(**inputs, names_filter=points)
    for scale, of in zip(points[:3], ["ln_final", points[3], points[4]], strict=True):
        x = cache["resid_post", -1] if of == "ln_final" else cache[of]
        literal = (x.pow(2).mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt()
        close(cache[scale], literal, 1e-5)
    with model.hooks([("ln_final.hook_scale", lambda x, hook: x * 2)]):
        half = model(**inputs)
    bias = model.b_U
    close((half - bias) * 2 + bias, model(**inputs))


def test_the_table_names_each_point_once():
    assert len({row.full_name for row in ROWS}) == len(ROWS)
    assert set(CASES)
