"""TransformerLens' own helpers on a HookedLVLM: caches, patching, weights, tokens."""

from __future__ import annotations

import pytest
import tiny_decoders
import torch
from family_cases import CASES, batch, hooked
from tiny_models import IMAGES, QUESTIONS, build
from transformer_lens import ActivationCache, patching

from rvelens import HookedLVLM


def close(a, b, atol=1e-4):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@pytest.fixture
def cached(model, inputs):
    with torch.no_grad():
        model.query_rows = "all"
        logits, cache = model.run_with_cache(**inputs)
    return logits, cache


def test_the_cache_is_transformerlens_own(model, cached):
    _, cache = cached
    assert type(cache) is ActivationCache
    assert cache["pattern", 1] is cache["blocks.1.attn.hook_pattern"]
    assert cache["resid_post", -1] is cache["blocks.2.hook_resid_post"]
    assert cache["scale", 0, "ln1"] is cache["blocks.0.ln1.hook_scale"]
    assert cache["q1"] is cache["blocks.1.attn.hook_q"]
    model.query_rows = "last"


def test_one_row_stays_one_row(model, inputs):
    _, cache = model.run_with_cache(**inputs)
    assert cache["pattern", 1].shape[2] == cache["attn_scores", 1].shape[2] == 1


def test_accumulated_resid_is_the_logit_lens(model, inputs, cached):
    logits, cache = cached
    stack, labels = cache.accumulated_resid(incl_mid=True, apply_ln=True, return_labels=True)
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
    norm = model.hf_model.get_decoder().norm
    literal = [norm(cache[f"blocks.{n[0]}.hook_resid_{n[2:]}"]) for n in labels[:-1]]
    close(stack[:-1], torch.stack(literal))
    close(model.hf_model.lm_head(stack[-1]), logits)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_attributions_add_up_to_the_logits(name):
    model = hooked(name)
    inputs = batch(model)
    logits, cache = model.run_with_cache(**inputs)
    parts, labels = cache.decompose_resid(return_labels=True)
    assert labels[:3] == ["embed", "0_attn_out", "0_mlp_out"]
    # Qwen3-VL adds features of the image to the stream between its first layers.
    text = model.tokens.text if name == "qwen3_vl" else model.tokens.real
    close(parts.sum(dim=0)[text], cache["resid_post", -1][text])
    for token in (5, 9):
        attributed = cache.logit_attrs(parts, token)
        close((attributed.sum(dim=0) + model.b_U[token])[text], logits[..., token][text])
    difference = cache.logit_attrs(parts, 5, 9).sum(dim=0) + model.b_U[5] - model.b_U[9]
    close(difference[text], (logits[..., 5] - logits[..., 9])[text])


def test_head_results(model, cached):
    _, cache = cached
    stack, labels = cache.stack_head_results(layer=2, return_labels=True)
    assert labels[9] == "L1H1"
    weight = model.hf_model.get_decoder().layers[1].self_attn.o_proj.weight
    d = model.cfg.d_head
    close(stack[9], cache["z", 1][:, :, 1] @ weight[:, d : 2 * d].T)
    whole, names = cache.stack_head_results(incl_remainder=True, return_labels=True)
    assert names[-1] == "remainder"
    close(whole.sum(dim=0), cache["resid_post", -1])


@torch.no_grad()
def test_full_decompositions_sum_to_the_stream(model, cached):
    _, cache = cached
    parts, labels = cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True)
    assert labels[-2:] == ["embed", "bias"]
    close(parts.sum(dim=0), cache["resid_post", -1])
    with pytest.raises(NotImplementedError, match="include_mlp_biases=True, and the biases of"):
        model.accumulated_bias(1)
    gemma = hooked("gemma3")
    _, cache = gemma.run_with_cache(**batch(gemma))
    with pytest.raises(
        NotImplementedError, match=r"layer 0 of \w+ norms what its heads add: expected"
    ):
        cache.get_full_resid_decomposition(expand_neurons=False)


@torch.no_grad()
def test_biases_of_a_hybrid_are_those_of_its_layers_with_attention():
    hf_model, _ = tiny_decoders.build("lfm2_vl")
    model = HookedLVLM.from_pretrained(hf_model)
    expected = sum(model.blocks[n].attn.b_O for n in model.attention_layers)
    close(model.accumulated_bias(model.n_layers, include_mlp_biases=False), expected)


def test_several_texts_keep_their_batch_dimension(model):
    with pytest.raises(
        ValueError, match="remove_batch_dim=True for 2 samples: expected one sample"
    ):
        model.run_with_cache(["a man", "a ball"], remove_batch_dim=True)


def test_use_attn_result_keeps_results(model, inputs):
    _, cache = model.run_with_cache(**inputs)
    assert not [n for n in cache if n.endswith("hook_result")]
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(**inputs)
    assert len([n for n in cache if n.endswith("hook_result")]) == model.n_layers


@pytest.mark.parametrize("name", CASES)
def test_cfg_and_weights(name):
    model = hooked(name)
    plain, _ = build(name)
    config, cfg = plain.config.get_text_config(decoder=True), model.cfg
    assert (cfg.n_layers, cfg.n_heads) == (config.num_hidden_layers, config.num_attention_heads)
    assert (cfg.d_model, cfg.n_key_value_heads) == (config.hidden_size, config.num_key_value_heads)
    assert cfg.normalization_type == "RMS"
    assert cfg.d_vocab == plain.get_output_embeddings().weight.shape[0]
    assert str(cfg.device) == "cpu"
    assert cfg.dtype is torch.float32
    attention = plain.get_decoder().layers[1].self_attn
    d = cfg.d_head
    assert model.W_Q.shape == (cfg.n_layers, cfg.n_heads, cfg.d_model, d)
    assert (
        model.W_K.shape == model.W_V.shape == (cfg.n_layers, cfg.n_key_value_heads, cfg.d_model, d)
    )
    assert torch.equal(model.W_Q[1, 2], attention.q_proj.weight[2 * d : 3 * d].T)
    assert torch.equal(model.W_V[1, 1], attention.v_proj.weight[d : 2 * d].T)
    assert torch.equal(model.blocks[1].attn.W_O[2], attention.o_proj.weight[:, 2 * d : 3 * d].T)
    bias = attention.q_proj.bias
    expected = torch.zeros(d) if bias is None else bias[2 * d : 3 * d]
    assert torch.equal(model.b_Q[1, 2], expected)
    assert model.b_O.shape == (cfg.n_layers, cfg.d_model)
    assert torch.equal(model.W_E, plain.get_input_embeddings().weight)
    assert torch.equal(model.W_U, plain.get_output_embeddings().weight.T)


def test_weights_are_those_of_the_points(model, inputs, cached):
    _, cache = cached
    norm = model.hf_model.get_decoder().layers[1].input_layernorm
    x = norm(cache["resid_pre", 1])
    for part, w, b in (("q", model.W_Q, model.b_Q), ("k", model.W_K, model.b_K)):
        literal = torch.einsum("bpm,hmd->bphd", x, w[1]) + b[1]
        close(cache[part, 1], literal)


def test_tokens(model):
    ids = model.to_tokens("does a man hold a ball ?")
    assert ids.shape[0] == 1
    assert model.to_string(ids[0]).split() == ["does", "a", "man", "hold", "a", "ball", "?"]
    words = model.to_str_tokens("man hold")
    assert words == ["man", "hold"]
    assert model.to_single_token("man") == int(ids[0, 2])
    assert model.to_single_str_token(int(ids[0, 2])) == "man"
    assert model.to_tokens(["a man", "a"], padding_side="left").shape == (2, 2)
    with pytest.raises(ValueError, match="'man hold' is 2 tokens: expected a text of one token"):
        model.to_single_token("man hold")
    alone = HookedLVLM.from_pretrained(build("llava")[0])
    with pytest.raises(ValueError, match="no processor: expected one, with a tokenizer"):
        alone.to_tokens("a")


@torch.no_grad()
def test_return_types(model, inputs):
    logits = model(**inputs)
    # A token right behind padding is predicted by no token.
    text = model.tokens.text[:, 1:] & model.tokens.real[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
    )
    loss = model(**inputs, return_type="loss")
    close(loss, losses[text].mean(), 1e-6)
    both = model(**inputs, return_type="both")
    assert torch.equal(both.logits, logits)
    assert torch.equal(both.loss, loss)
    per_token = model(**inputs, return_type="loss", loss_per_token=True)
    close(per_token, losses * text, 1e-6)
    alone = [
        model(**model.prepare(*pair), return_type="loss", loss_per_token=True)
        for pair in zip(IMAGES, QUESTIONS, strict=True)
    ]
    counts = sum(int((x != 0).sum()) for x in alone)
    close(loss, sum(x.sum() for x in alone) / counts, 1e-5)
    assert model(**inputs, return_type=None) is None
    with pytest.raises(ValueError, match="return_type is 'logit': expected 'logits', 'loss'"):
        model(**inputs, return_type="logit")
    with pytest.raises(ValueError, match="return_type='loss' with logits_to_keep"):
        model(**inputs, return_type="loss", logits_to_keep=1)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_stopping_at_a_layer(name):
    model = hooked(name)
    inputs = batch(model)
    _, cache = model.run_with_cache(**inputs)
    n = model.n_layers
    for layer in (0, 1, n, -1):
        expected = cache["resid_post", -1] if layer == n else cache["resid_pre", layer % n]
        assert torch.equal(model(**inputs, stop_at_layer=layer), expected)
    ran = []
    points = [f"blocks.{layer}.hook_resid_pre" for layer in range(n)]
    with model.hooks([(p, lambda x, hook: ran.append(hook.name)) for p in ["hook_embed", *points]]):
        model(**inputs, stop_at_layer=0)
        assert ran == ["hook_embed"]
        model(**inputs, stop_at_layer=2)
    assert ran[1:] == ["hook_embed", *points[:2]]
    assert torch.equal(model(**inputs), model.hf_model(**inputs).logits)
    with pytest.raises(ValueError, match=r"stop_at_layer=7 of a model of \d layers: expected"):
        model(**inputs, stop_at_layer=7)


@torch.no_grad()
def test_ids_and_texts_come_first(model, inputs):
    ids = model.to_tokens("does a man hold a ball ?")
    assert torch.equal(model(ids), model("does a man hold a ball ?"))
    assert torch.equal(
        model.generate(ids, max_new_tokens=2, do_sample=False),
        model.generate(input_ids=ids, max_new_tokens=2, do_sample=False),
    )
    given = {k: v for k, v in inputs.items() if k != "input_ids"}
    with model.default_inputs(inputs):
        assert torch.equal(model(inputs["input_ids"]), model(**inputs))
        generated = model.generate(inputs["input_ids"], max_new_tokens=2, do_sample=False)
    assert torch.equal(
        generated, model.generate(inputs["input_ids"], **given, max_new_tokens=2, do_sample=False)
    )


def metric(logits):
    return logits[0, -1, 5] - logits[0, -1, 9]


@torch.no_grad()
def test_patching_between_texts(model):
    clean = model.to_tokens("does a man hold a ball ?")
    corrupted = model.to_tokens("does a man kick a ball ?")
    model.query_rows = "all"
    _, cache = model.run_with_cache(clean)
    patched = patching.get_act_patch_resid_pre(model, corrupted, cache, metric)
    assert patched.shape == (3, clean.shape[1])
    # The whole stream of the first layer at the word that differs makes the corrupted run clean.
    where = int((clean != corrupted).nonzero()[0, 1])
    close(patched[0, where], metric(model(clean)), 1e-5)
    close(patched[0, 0], metric(model(corrupted)), 1e-5)
    heads = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric)
    literal = metric(model.run_with_hooks(corrupted, fwd_hooks=[("blocks.1.attn.hook_z", put)]))
    assert heads.shape == (3, model.n_heads)
    put.z = cache["z", 1]
    literal = metric(model.run_with_hooks(corrupted, fwd_hooks=[("blocks.1.attn.hook_z", put)]))
    close(heads[1, 2], literal, 1e-6)
    every = patching.get_act_patch_attn_head_all_pos_every(model, corrupted, cache, metric)
    assert every.shape == (5, 3, model.n_heads)
    assert (every - metric(model(corrupted))).abs().amax(dim=(1, 2)).min() > 0
    blocks = patching.get_act_patch_block_every(model, corrupted, cache, metric)
    assert blocks.shape == (3, 3, clean.shape[1])


def put(z, hook):
    z = z.clone()
    z[:, :, 2] = getattr(put, "z", z)[:, :, 2]
    return z


@torch.no_grad()
def test_patching_between_images(model):
    clean, corrupted = (model.prepare(image, QUESTIONS[0]) for image in IMAGES[:2])
    assert torch.equal(clean["input_ids"], corrupted["input_ids"])
    _, cache = model.run_with_cache(**clean)
    with model.default_inputs(corrupted):
        patched = patching.get_act_patch_resid_pre(model, corrupted["input_ids"], cache, metric)
    image = model.token_map(clean).image[0]
    assert patched.shape == (3, len(image))
    plain = metric(model(**corrupted))
    moved = (patched[0] - plain).abs() > 1e-6
    assert not bool(moved[~image].any())
    assert bool(moved[image].any())
    all_of_it = model.run_with_hooks(
        **corrupted, fwd_hooks=[("hook_image_features", lambda x, hook: cache[hook.name])]
    )
    close(metric(all_of_it), metric(model(**clean)), 1e-5)
