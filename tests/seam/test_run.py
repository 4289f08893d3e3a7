"""The token map follows caches: decode steps, chunked prompts, cropped caches, several at once."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import DynamicCache

from rvelens import HookedLVLM
from rvelens.hooks import rve_hooks


@pytest.fixture
def hooks(model, profile):
    return rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)


def split(inputs, at):
    first = {**inputs, "input_ids": inputs["input_ids"][:, :at]}
    first["attention_mask"] = inputs["attention_mask"][:, :at]
    last = {"input_ids": inputs["input_ids"][:, at:], "attention_mask": inputs["attention_mask"]}
    return first, last


@torch.no_grad()
def test_a_prompt_in_two_pieces(model, inputs, hooks):
    first, last = split(inputs, inputs["input_ids"].shape[1] - 4)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    with model.hooks(hooks):
        pieces = model(**last, past_key_values=cache)[:, -1]
        whole = model(**inputs)[:, -1]
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)
    assert model.tokens.n_image == model.token_map(inputs).n_image


@torch.no_grad()
def test_two_generations_in_turn(model, inputs, hooks):
    one, two = ({k: v[i : i + 1] for k, v in inputs.items()} for i in (0, 1))
    first, last = split(one, one["input_ids"].shape[1] - 1)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    with model.hooks(hooks):
        expected = model(**one)[:, -1]
        model(**two)
        resumed = model(**last, past_key_values=cache)[:, -1]
    torch.testing.assert_close(resumed, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_reordered_cache_keeps_its_images(model, inputs, hooks):
    first, last = split(inputs, inputs["input_ids"].shape[1] - 1)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    order = torch.tensor([2, 0, 1, 0])
    cache.batch_select_indices(order)
    with model.hooks(hooks):
        got = model(**{k: v[order] for k, v in last.items()}, past_key_values=cache)[:, -1]
        expected = model(**inputs)[order, -1]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_interrupted_forward_leaves_no_trace(model, inputs, hooks):
    def interrupt(z, hook):
        raise KeyboardInterrupt

    short = {k: v[:1] for k, v in inputs.items()}
    with pytest.raises(KeyboardInterrupt), model.hooks([("blocks.0.attn.hook_z", interrupt)]):
        model(**short)
    with model.hooks(hooks):
        model(**inputs)
        assert model.tokens.batch == len(inputs["input_ids"])
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.no_grad()(lambda: model(**inputs))).result()


@torch.no_grad()
def test_what_a_failed_generation_announced_is_forgotten(model, inputs, hooks):
    with pytest.raises(ValueError, match="nonsense"):
        model.generate(**inputs, nonsense=3)
    embeds = torch.randn(*inputs["input_ids"].shape, model.hf_model.config.text_config.hidden_size)
    with pytest.raises(ValueError, match="has no token map"), model.hooks(hooks):
        model(inputs_embeds=embeds)


@torch.no_grad()
def test_a_cache_of_picked_samples_keeps_their_images(model, inputs, hooks):
    first, last = split(inputs, inputs["input_ids"].shape[1] - 1)
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model(**first, past_key_values=cache)
    cache.batch_select_indices(torch.tensor([0, 1]))
    two = {k: v[:2] for k, v in last.items()}
    plain = model(**two, past_key_values=cache)[:, -1]
    cache.crop(-1)
    with model.hooks(hooks):
        hooked = model(**two, past_key_values=cache)[:, -1]
        expected = model(**inputs)[:2, -1]
    torch.testing.assert_close(hooked, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(hooked, plain, atol=1e-3)


@torch.no_grad()
def test_a_static_cache_generates_the_same(model, inputs, hooks):
    options = {"max_new_tokens": 5, "do_sample": False, "disable_compile": True}
    with model.hooks(hooks):
        dynamic = model.generate(**inputs, **options)
        static = model.generate(**inputs, **options, cache_implementation="static")
    assert torch.equal(dynamic, static)


@torch.no_grad()
def test_an_unknown_cache_is_answered(model, inputs, hooks):
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    model.hf_model.get_decoder()(
        inputs_embeds=torch.randn(3, 5, model.hf_model.config.text_config.hidden_size),
        past_key_values=cache,
    )
    with (
        pytest.raises(ValueError, match=r"blocks\.0\.attn\.hook_attn_scores has no token map"),
        model.hooks(hooks),
    ):
        model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)


@torch.no_grad()
def test_a_forward_inside_a_hook_leaves_the_outer_one_alone(model, inputs, hooks):
    two = {k: v[:2] for k, v in inputs.items()}
    nested = []

    def run_another(z, hook):
        nested.append(model.hf_model(**two).logits)

    with model.hooks(hooks):
        expected = model(**inputs)[:, -1]
        tokens = model.tokens
    # First among the hooks of its point, so that the others run after it.
    first = [("blocks.1.attn.hook_attn_scores", run_once(run_another))]
    with model.hooks([*first, *hooks]):
        got = model(**inputs)[:, -1]
    assert len(nested) == 1
    assert torch.equal(got, expected)
    assert torch.equal(model.tokens.image, tokens.image)


def run_once(hook_function):
    """The hook fires in the forward that it starts as well."""
    calls = []

    def hook(x, hook):
        if not calls:
            calls.append(None)
            hook_function(x, hook)

    return hook


@torch.no_grad()
def test_a_failed_forward_leaves_no_trace(model, inputs):
    def fail(z, hook):
        raise KeyError("mine")

    before = model(**inputs)
    with pytest.raises(KeyError, match="mine"), model.hooks([("blocks.0.attn.hook_z", fail)]):
        model(**inputs)
    assert model._run.depth == 0
    assert torch.equal(model(**inputs), before)


@torch.no_grad()
def test_a_second_thread_is_answered(model, inputs):
    failed = []

    def elsewhere():
        try:
            model(**inputs)
        except RuntimeError as error:
            failed.append(str(error))

    def start_a_thread(z, hook):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    def start_twice(z, hook):
        start_a_thread(z, hook)
        start_a_thread(z, hook)

    expected = model(**inputs)
    with model.hooks([("blocks.1.attn.hook_z", start_twice)]):
        assert torch.equal(model(**inputs), expected)
    assert len(failed) == 2
    assert all("another thread runs the same model" in error for error in failed)


@torch.no_grad()
def test_a_copy_of_the_wrapped_model_runs_apart(model, inputs, hooks):
    copied = HookedLVLM(copy.deepcopy(model.hf_model), model.processor)
    two = {k: v[:2] for k, v in inputs.items()}
    model(**inputs)
    with copied.hooks(hooks):
        edited = copied(**two)[:, -1]
    assert model.tokens.batch == len(inputs["input_ids"])
    assert not torch.equal(edited, model(**two)[:, -1])


@torch.no_grad()
def test_infinity_from_a_hook_on_z_is_named(model, inputs):
    with (
        pytest.raises(ValueError, match=r"the attention of blocks\.1\.attn is not finite"),
        model.hooks([("blocks.1.attn.hook_z", lambda z, hook: z / 0)]),
    ):
        model(**inputs)


@torch.no_grad()
def test_guidance_runs_its_own_branch_beside_rve(model, inputs, hooks):
    """Classifier-free guidance runs the text alone through the same model, with its own cache."""
    one = {k: v[:1] for k, v in inputs.items()}
    options = {"max_new_tokens": 4, "do_sample": False}
    with model.hooks(hooks):
        plain = model.generate(**one, **options)
        guided = model.generate(**one, **options, guidance_scale=1.0 + 1e-6)
    assert torch.equal(plain, guided)
