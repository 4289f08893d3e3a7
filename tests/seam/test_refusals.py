"""What cannot be exact is refused with its reason; what looks unusual and can be, works."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload, dispatch_model
from family_cases import CASES, batch, hooked, profile_of
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ContrastivePair, HookedLVLM, attach_tokens, score_heads
from rvelens.hooks import rve_hooks
from rvelens.seam.forward import Forward

SCORES = "blocks.1.attn.hook_attn_scores"


def rve(model: HookedLVLM, layers: Any = None) -> Any:
    layers = model.attention_layers if layers is None else layers
    return rve_hooks(profile_of(model), layers, k=3, alpha=0.3)


def plain_model() -> Any:
    return build("llava")[0]


# -- hooks that would never fire -------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_an_attention_module_replaced_under_hooks_is_named(name):
    model = hooked(name)
    inputs = batch(model)
    modules = [m for m in model.hf_model.get_decoder().modules() if hasattr(m, "self_attn")]
    with model.hooks(rve(model)):
        modules[1].self_attn = copy.deepcopy(modules[1].self_attn)
        with pytest.raises(RuntimeError, match=r"hooks on blocks\.1\.attn\.hook_.* did not run"):
            model(**inputs)
    with (
        pytest.raises(
            ValueError, match=r"are not those that were wrapped: .*; wrap the model again"
        ),
        model.hooks(rve(model)),
    ):
        model(**inputs)
    again = HookedLVLM(model.hf_model, model.processor, model.family)
    with again.hooks(rve(again)):
        edited = again(**inputs)
    assert not torch.allclose(edited[:, -1], again(**inputs)[:, -1], atol=1e-3)


@torch.no_grad()
def test_every_point_that_did_not_run_is_named(model, inputs):
    layers = model.hf_model.get_decoder().layers
    points = [SCORES, "blocks.2.attn.hook_z", "blocks.2.attn.hook_pattern"]
    with model.hooks([(point, lambda x, hook: None) for point in points]):
        for layer in (1, 2):
            layers[layer].self_attn = copy.deepcopy(layers[layer].self_attn)
        with pytest.raises(RuntimeError) as error:
            model(**inputs)
    assert all(point in str(error.value) for point in points)


@torch.no_grad()
def test_a_model_wrapped_again_with_fewer_layers(model, inputs):
    decoder = model.hf_model.get_decoder()
    decoder.layers = decoder.layers[:2]
    fewer = HookedLVLM(model.hf_model, model.processor)
    assert fewer.attention_layers == (0, 1)
    with fewer.hooks(rve(fewer, [0, 1])):
        assert torch.isfinite(fewer(**inputs)).all()
    with pytest.raises(ValueError, match="wrap the model again"), model.hooks(rve(model, [0])):
        model(**inputs)


@torch.no_grad()
def test_another_decoder_is_noticed(model, inputs):
    with model.hooks(rve(model)):
        inner = model.hf_model.model
        inner.language_model = copy.deepcopy(inner.language_model)
        with pytest.raises(RuntimeError, match=r"the decoder of Llava.* did not run, so no hook"):
            model(**inputs)


# -- the self-check --------------------------------------------------------------------------------


def deaf(module: Any, *args: Any, **kwargs: Any) -> Any:
    """An attention module whose output does not depend on its attention function."""
    out, weights = module.original(*args, **kwargs)
    return torch.zeros_like(out), weights


@torch.no_grad()
def test_a_layer_whose_attention_does_not_reach_the_logits_is_refused():
    hf_model = plain_model()
    attention = hf_model.get_decoder().layers[1].self_attn
    attention.original = attention.forward
    attention.forward = lambda *args, **kwargs: deaf(attention, *args, **kwargs)
    model = HookedLVLM(hf_model)
    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]):
        pass
    for point in (SCORES, "blocks.1.attn.hook_z"):
        with (
            pytest.raises(ValueError, match=rf"{point} .* does not change the logits"),
            model.hooks([(point, lambda x, hook: None)]),
        ):
            pass
    unchecked = HookedLVLM(hf_model, self_check=False)
    with unchecked.hooks([(SCORES, lambda x, hook: None)]):
        pass


@torch.no_grad()
def test_attention_that_is_no_plain_softmax_is_refused_on_scores_alone(monkeypatch):
    """A decoder that scales its values after softmax, as a sink or a cap would."""
    from transformers.models.llama import modeling_llama

    def capped(module, query, key, value, mask, scaling, dropout=0.0, **kwargs):
        z, weights = original(module, query, key, value, mask, scaling, dropout, **kwargs)
        return z * 0.5, weights

    original = modeling_llama.eager_attention_forward
    monkeypatch.setattr(modeling_llama, "eager_attention_forward", capped)
    hf_model, processor = build("llava")
    hf_model.set_attn_implementation("eager")
    model = HookedLVLM(hf_model, processor)
    with (
        pytest.raises(ValueError, match=r"is not softmax\(q k\^T \* scaling \+ mask\) v"),
        model.hooks([(SCORES, lambda x, hook: None)]),
    ):
        pass
    with model.hooks([("blocks.1.attn.hook_z", lambda z, hook: z * 2)]):
        assert torch.isfinite(model(**batch(model))).all()


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_the_self_check_leaves_no_trace(name):
    model = hooked(name)
    inputs = batch(model)
    model.hf_model.train()
    modes = [m.training for m in model.hf_model.modules()]
    state = torch.get_rng_state()
    before = model.tokens
    with model.hooks(rve(model)):
        pass
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.hf_model.modules()] == modes
    assert model.tokens is before or before is None
    model.hf_model.eval()
    assert model._seam.problems == {}
    assert torch.isfinite(model(**inputs)).all()


# -- autocast, training ----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_float32_under_autocast(name, dtype):
    model = hooked(name)
    inputs = batch(model)
    dtypes = {}

    def look(x, hook):
        dtypes[hook.name] = x.dtype

    points = [SCORES, "blocks.1.attn.hook_pattern"]
    with torch.autocast("cpu", dtype=dtype):
        plain = model(**inputs)
        with model.hooks([(point, look) for point in points]):
            assert torch.equal(model(**inputs), plain)
        with model.hooks([(SCORES, lambda scores, hook: scores.clone())]):
            same = model(**inputs)
        with model.hooks(rve(model)):
            edited = model(**inputs)
    assert set(dtypes.values()) == {torch.float32}
    assert same.dtype == plain.dtype
    scale = float(plain.abs().max())
    eps = torch.finfo(dtype).eps
    assert float((same - plain)[:, -1].abs().max()) <= 8 * eps * scale
    assert float((edited - plain)[:, -1].abs().max()) > 16 * eps * scale


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
def test_gradient_checkpointing_is_refused_under_hooks(name, reentrant):
    model = hooked(name)
    inputs = batch(model)
    model.hf_model.train()
    model.hf_model.activation_checkpointing_enable({"use_reentrant": reentrant})
    with (
        pytest.raises(
            NotImplementedError, match=r"gradient checkpointing are both on.*turn checkpointing off"
        ),
        model.hooks(rve(model)),
    ):
        model(**inputs)
    if not reentrant:  # nothing is run again without gradients
        with torch.no_grad(), model.hooks(rve(model)):
            assert torch.isfinite(model(**inputs, use_cache=False)).all()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_gradient_checkpointing_of_a_hooked_tower_is_refused(name):
    model = hooked(name)
    inputs = batch(model)
    model.hf_model.train()
    model.hf_model.get_encoder(modality="image").gradient_checkpointing_enable()
    hooks = [("vision.blocks.0.attn.hook_v", lambda x, hook: 3 * x)]
    with (
        pytest.raises(NotImplementedError, match="gradient checkpointing are both on"),
        model.hooks(hooks),
    ):
        model(**inputs)
    with torch.no_grad(), model.hooks(hooks):
        assert torch.isfinite(model(**inputs)).all()
    with model.hooks(rve(model)):  # hooks on the decoder alone, whose layers run once
        model(**inputs)[:, -1].sum().backward()


def test_a_layer_that_runs_again_in_backward_is_refused(model, inputs):
    """Checkpointing of a user's own, around one layer."""
    from torch.utils.checkpoint import checkpoint

    layer = model.hf_model.get_decoder().layers[1]
    forward = layer.forward
    layer.forward = lambda *a, **k: checkpoint(forward, *a, use_reentrant=False, **k)
    with model.hooks(rve(model)):
        loss = model(**inputs)[:, -1].sum()
        with pytest.raises(RuntimeError, match="runs outside of a forward of the model"):
            loss.backward()


def test_score_heads_in_training_mode_is_answered(model):
    pair = ContrastivePair(IMAGES[0], "does a man hold a ball ?", "does a man kick a ball ?")
    model.hf_model.train()
    with pytest.raises(ValueError, match=r"in training mode.*call model\.eval\(\)"):
        score_heads(model, [pair])


# -- what is asked of run_with_cache and forward ---------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_at_layer": 1}, "start_at_layer=1 has no effect"),
        (
            {"output_attentions": True},
            "output_attentions=True has no effect, since .* hook_pattern",
        ),
        ({"logits_to_kep": 1}, "unknown argument 'logits_to_kep': .* mean 'logits_to_keep'"),
    ],
)
def test_arguments_without_effect_are_answered(model, inputs, arguments, message):
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(TypeError, match=message):
            run(**inputs, **arguments)


@torch.no_grad()
def test_run_with_cache_does_what_it_says_or_refuses(model, inputs):
    with pytest.raises(ValueError, match=r"pos_slice=0 .* the last row.*query_rows = \"all\""):
        model.run_with_cache(**inputs, pos_slice=0)
    z = "blocks.0.attn.hook_z"
    _, cache = model.run_with_cache(**inputs, names_filter=z)
    _, first = model.run_with_cache(**inputs, names_filter=z, pos_slice=0)
    assert torch.equal(first[z].squeeze(1), cache[z][:, 0])
    model.query_rows = "all"
    _, cache = model.run_with_cache(**inputs, names_filter=SCORES)
    _, first = model.run_with_cache(**inputs, names_filter=SCORES, pos_slice=0)
    assert torch.equal(first[SCORES].squeeze(2), cache[SCORES][:, :, 0])
    with pytest.raises(ValueError, match="remove_batch_dim=True for 3 samples"):
        model.run_with_cache(**inputs, remove_batch_dim=True)
    one = {k: v[:1] for k, v in inputs.items()}
    _, removed = model.run_with_cache(**one, remove_batch_dim=True)
    assert removed[SCORES].dim() == 3
    with pytest.raises(ValueError, match=r"incl_bwd=True needs a loss, .*: expected return_type"):
        model.run_with_cache(**inputs, incl_bwd=True)


# -- errors that were unclear ----------------------------------------------------------------------


def test_a_wrapper_is_not_pickled_and_its_model_is(model, inputs):
    for save in (pickle.dumps, lambda x: torch.save(x, io.BytesIO())):
        with pytest.raises(
            TypeError, match=r"a HookedLVLM cannot be pickled.* save model.hf_model"
        ):
            save(model)
    with torch.no_grad(), model.hooks(rve(model)):
        loaded = pickle.loads(pickle.dumps(model.hf_model))
        assert torch.equal(loaded(**inputs).logits, plain_model()(**inputs).logits)


@torch.no_grad()
def test_return_dict_false_returns_logits_all_the_same(model, inputs):
    expected = model(**inputs)
    assert torch.equal(model(**inputs, return_dict=False), expected)
    labels = inputs["input_ids"]
    assert torch.equal(model(**inputs, labels=labels, return_dict=False), expected)


@torch.no_grad()
def test_offloaded_models_run_and_say_where_inputs_belong(tmp_path):
    expected = HookedLVLM(*build("llava"))
    inputs = batch(expected)
    with expected.hooks(rve(expected)):
        edited = expected(**inputs)
    whole, processor = build("llava")
    cpu_offload(whole)
    first, _ = build("llava")
    parts = {"model.vision_tower": "disk", "model.multi_modal_projector": "cpu"}
    parts |= {"model.language_model": "cpu", "lm_head": "cpu"}
    dispatch_model(first, parts, offload_dir=str(tmp_path), main_device="cpu")
    for hf_model in (whole, first):
        model = HookedLVLM(hf_model, processor)
        assert model.device.type == "cpu"
        prepared = batch(model)
        with model.hooks(rve(model)):
            torch.testing.assert_close(model(**prepared), edited, rtol=0, atol=1e-5)


@torch.no_grad()
def test_paged_generation_is_refused_under_hooks(model, monkeypatch):
    """generate_batch hands attention a paged cache and rows of several prompts."""
    attention = model.hf_model.get_decoder().layers[0].self_attn
    look_up = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS.get_interface
    heads = torch.randn(1, 8, 5, 8)
    attend = look_up("sdpa", None)
    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]):
        monkeypatch.setattr(model._run.here, "forwards", [Forward()])  # as inside a forward
        with pytest.raises(NotImplementedError, match=r"a paged cache .* before generate_batch"):
            attend(attention, heads, heads, heads, None, cache=object())


@torch.no_grad()
def test_a_function_that_cannot_be_opened_is_named(model, inputs):
    """Flash, flex and registered functions: hooks on z work, those on scores are refused."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    transformers.AttentionInterface.register("own_kernel", sdpa_attention_forward)
    transformers.AttentionMaskInterface.register("own_kernel", sdpa_mask)
    model.hf_model.set_attn_implementation("own_kernel")
    again = HookedLVLM(plain_model().__class__(model.hf_model.config).eval(), model.processor)
    again.hf_model.set_attn_implementation("own_kernel")
    with again.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 1.1)]):
        assert torch.isfinite(again(**inputs)).all()
    with (
        pytest.raises(ValueError, match="runs under the attention implementation 'own_kernel'"),
        again.hooks(rve(again)),
    ):
        again(**inputs)


@torch.no_grad()
@pytest.mark.parametrize("bare", [False, True])
def test_nan_in_a_late_token_is_named(model, inputs, bare):
    """Checks wait for the device every few tokens only; what is left is checked at the end."""
    calls = []

    def poison(pattern, hook):
        calls.append(None)
        return pattern / 0 if len(calls) == 4 else pattern.clone()

    generate = model.hf_model.generate if bare else model.generate
    copied = ("blocks.2.attn.hook_pattern", lambda pattern, hook: pattern.clone())
    hooks = [("blocks.1.attn.hook_pattern", poison), copied]
    with (
        pytest.raises(ValueError, match=r"the attention of blocks\.1\.attn is not finite"),
        model.hooks(hooks),
    ):
        generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.isfinite(model(**inputs)).all()


@torch.no_grad()
@pytest.mark.parametrize("rows", ["last", "all"])
@pytest.mark.parametrize("point", [SCORES, "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_z"])
def test_an_edit_in_place_counts(model, inputs, rows, point):
    def in_place(x, hook):
        x[..., 3] *= 2.0

    def copied(x, hook):
        x = x.clone()
        x[..., 3] *= 2.0
        return x

    model.query_rows = rows
    with model.hooks([(point, copied)]):
        expected = model(**inputs)
    with model.hooks([(point, in_place)]):
        got = model(**inputs)
        with torch.inference_mode():
            inference = model(**inputs)
    assert torch.equal(got, expected)
    torch.testing.assert_close(inference, expected, rtol=0, atol=1e-6)
    assert not torch.equal(got, model(**inputs))


def test_right_padded_prompts_in_a_layer_that_computes_few_rows():
    """Gemma 4's layers with shared keys compute the last rows of a prompt only."""
    from tiny_decoders import build as build_decoder

    hf_model, inputs = build_decoder("gemma4")
    model = HookedLVLM(hf_model)
    mask = torch.ones_like(inputs["input_ids"])
    mask[1, -3:] = 0
    padded = {**inputs, "attention_mask": mask}
    hooks = rve(model)
    with torch.no_grad(), model.hooks(hooks):
        model(**padded)
        with pytest.raises(NotImplementedError, match="computes the newest 1 of 41 rows"):
            model(**padded, logits_to_keep=1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_a_model_with_adapters_is_taken():
    peft = pytest.importorskip("peft")
    hf_model, processor = build("llava")
    adapted = peft.get_peft_model(
        hf_model, peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    ).eval()
    for model in (
        HookedLVLM(adapted, processor),
        HookedLVLM.from_pretrained(adapted, processor=processor),
    ):
        inputs = batch(model)
        with torch.no_grad():
            plain = model(**inputs)
            assert torch.equal(plain, adapted(**inputs).logits)
            with model.hooks(rve(model)):
                assert not torch.allclose(model(**inputs)[:, -1], plain[:, -1], atol=1e-3)
    assert QUESTIONS  # the prompts of the batch


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), torch.nn.ModuleList()])
def test_what_is_no_model_is_named(wrong):
    with pytest.raises(ValueError, match=r"the model is a \w+: expected a name, a folder or"):
        HookedLVLM.from_pretrained(wrong)


def test_attached_tokens_are_answered_where_they_would_have_no_effect(model, inputs):
    tokens = model.token_map(inputs)
    with pytest.raises(ValueError, match=r"is a hook point of a HookedLVLM.*pass tokens="):
        attach_tokens(model.hook_dict.values(), tokens)
