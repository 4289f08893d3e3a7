"""Nothing slips past the checks: hooks added by torch's own ways, layers moved, bare generate."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import weakref
from typing import Any

import pytest
import torch
import transformers
from family_cases import CASES, batch, hooked, profile_of
from tiny_models import IMAGES, QUESTIONS
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rvelens import HookedLVLM
from rvelens.hooks import rve_hooks
from rvelens.tokens.token_map import TokenMap

every_family = pytest.mark.parametrize("name", CASES)
Z = "blocks.1.attn.hook_z"


def scaled(module: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(module, query * 1.5, *args, **kwargs)


@torch.no_grad()
@every_family
def test_an_attention_function_exchanged_after_the_check_is_named(name, monkeypatch):
    model = hooked(name)
    inputs = batch(model)
    functions = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS
    hooks = rve_hooks(profile_of(model), range(model.n_layers), k=3, alpha=0.3)
    with model.hooks(hooks):
        model(**inputs)
        monkeypatch.setitem(functions._global_mapping, "sdpa", scaled)
        with pytest.raises(RuntimeError, match=r"another attention function than the self-check"):
            model(**inputs)
    with (
        pytest.raises(ValueError, match=r"its attention is not softmax\(q k\^T \* scaling"),
        model.hooks(hooks),
    ):
        pass
    with model.hooks([(Z, lambda z, hook: z * 2)]):
        assert torch.isfinite(model(**inputs)).all()
    monkeypatch.undo()
    model._seam.run.is_changed = True
    with model.hooks(hooks):
        model(**inputs)


@torch.no_grad()
@every_family
@pytest.mark.parametrize("way", ["add_hook", "add_perma_hook", "register_forward_hook"])
def test_hooks_put_on_a_point_itself_are_checked_too(name, way, monkeypatch):
    """A layer whose output reaches nothing: its point runs the self-check in the next forward."""
    model = hooked(name)
    inputs = batch(model)
    attention = model._seam.modules[1]
    dead = type(attention).forward
    monkeypatch.setattr(
        attention,
        "forward",
        lambda *args, **kwargs: (torch.zeros(1), *dead(attention, *args, **kwargs)[1:]),
    )
    getattr(model.hook_dict[Z], way)(lambda *args, **kwargs: None)
    with pytest.raises(
        ValueError, match=r"blocks\.1\.attn\.hook_z of .* does not change the logits"
    ):
        model(**inputs)
    model.reset_hooks(including_permanent=True)
    model.hook_dict[Z]._forward_hooks.clear()
    assert torch.isfinite(model(**inputs)).all()


def moved(layers: Any) -> dict[str, Any]:
    pruned = torch.nn.ModuleList([layers[0], *layers[2:]])
    return {"swapped": torch.nn.ModuleList([layers[1], layers[0], *layers[2:]]), "pruned": pruned}


@every_family
@pytest.mark.slow
@pytest.mark.parametrize("how", ["swapped", "pruned"])
def test_layers_out_of_place_are_refused(name, how):
    model = hooked(name)
    decoder = model.hf_model.get_decoder()
    lists = [path for path, m in decoder.named_modules() if isinstance(m, torch.nn.ModuleList)]
    parent, _, last = lists[0].rpartition(".")
    owner = decoder.get_submodule(parent)
    setattr(owner, last, moved(getattr(owner, last))[how])
    message = r"has layer_idx \d: expected layers in the order of their numbers"
    with pytest.raises(ValueError, match=message), model.hooks([(Z, lambda z, hook: z)]):
        pass
    with pytest.raises(ValueError, match=message):
        HookedLVLM(model.hf_model, model.processor, model.family)


OPTIONS: dict[str, dict[str, Any]] = {
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 2},
    "prefill_chunk_size": {"prefill_chunk_size": 4},
    "assistant_early_exit": {"assistant_early_exit": 1},
    "use_mtp": {"use_mtp": True},
    "use_cache": {"use_cache": False},
}


@torch.no_grad()
@every_family
@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_the_models_own_generate_refuses_several_rows_a_step(name, option):
    model = hooked(name)
    one = model.prepare(IMAGES[0], QUESTIONS[0])
    given = {**one, "max_new_tokens": 2, "do_sample": False}
    with model.hooks([(Z, lambda z, hook: z * 2)]):
        for how in ({**OPTIONS[option]}, as_config(model, OPTIONS[option])):
            with pytest.raises(ValueError, match=rf"{option}.* runs several rows in a step"):
                model.hf_model.generate(**given, **how)
    model.hf_model.generate(**given)


def as_config(model: HookedLVLM, options: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(model.hf_model.generation_config)
    for name, value in options.items():
        setattr(config, name, value)
    return {"generation_config": config}


@every_family
def test_a_guarded_generate_looks_like_the_models_own(name):
    model = hooked(name)
    own = type(model.hf_model).generate
    guarded: Any = model.hf_model.generate
    assert inspect.signature(guarded) == inspect.signature(own.__get__(model.hf_model))
    assert guarded.__doc__ == own.__doc__
    copied = copy.deepcopy(model.hf_model)
    assert copied.generate.__func__ is own
    assert copied.generate.__self__ is copied


@torch.no_grad()
@every_family
def test_what_a_failed_forward_announced_is_forgotten(name):
    """The model fails before its decoder starts; the decoder alone then reads other embeddings."""
    model = hooked(name)
    inputs = dict(batch(model))
    decoder = model.hf_model.get_decoder()
    handle = decoder.register_forward_pre_hook(fail, prepend=True)
    with pytest.raises(ZeroDivisionError):
        model.hf_model(**inputs)
    handle.remove()
    width = model.hf_model.get_input_embeddings().weight.shape[1]
    embeds = torch.randn(*inputs["input_ids"].shape, width)
    with (
        pytest.raises(ValueError, match="has no token map"),
        model.hooks(rve_hooks(profile_of(model), [1], k=3, alpha=0.3)),
    ):
        decoder(inputs_embeds=embeds)


def fail(*_: Any) -> None:
    raise ZeroDivisionError


@torch.no_grad()
@pytest.mark.parametrize("kind", [frozenset, tuple, list, set, dict.fromkeys, iter])
def test_names_in_any_collection_are_a_filter(model, inputs, kind):
    _, cache = model.run_with_cache(**inputs, names_filter=kind([Z]))
    assert list(cache) == [Z]
    with pytest.raises(ValueError, match=r"unknown hook name 'blocks\.1\.attn\.hook_y'"):
        model.run_with_cache(**inputs, names_filter=kind(["blocks.1.attn.hook_y"]))
    with pytest.raises(ValueError, match=r"names_filter matches none .* or None for all"):
        model.run_with_cache(**inputs, names_filter=kind([]))


def test_a_map_with_another_mask_than_its_counts_is_refused(model, inputs):
    tokens = model.token_map(inputs)
    with pytest.raises(ValueError, match=r"counts that do not fit its image mask.*from_masks"):
        dataclasses.replace(tokens, image=~tokens.image)
    again = copy.deepcopy(tokens)
    assert torch.equal(again.image_keys(90, torch.device("cpu")),
                       tokens.image_keys(90, torch.device("cpu")))  # fmt: skip
    tokens.image[0, 0] = True
    with pytest.raises(ValueError, match=r"was edited in place: .* call TokenMap\.from_masks"):
        tokens.image_keys(90, torch.device("cpu"))
    assert TokenMap.from_masks(tokens.image, tokens.real).image_keys(90, torch.device("cpu")).any()


@torch.no_grad()
def test_hooks_that_are_gone_are_held_no_longer(model, inputs):
    class Hook:
        def __call__(self, z, hook):
            return z

    hook = Hook()
    gone = weakref.ref(hook)
    with model.hooks([(Z, hook)]):
        model(**inputs)
    del hook
    gc.collect()
    assert gone() is None


@torch.no_grad()
def test_a_forward_without_hooks_runs_no_self_check(model, inputs):
    model(**inputs)
    assert model._seam.problems is None
    model.run_with_cache(**inputs)
    assert model._seam.problems == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every_family
def test_good_layers_pass_in_any_dtype_beside_a_massive_activation(name, dtype):
    """As in pretrained models: a few dimensions of the stream are much larger than the others."""
    model = hooked(name)
    hf_model = copy.deepcopy(model.hf_model).to(dtype)
    with torch.no_grad():
        hf_model.get_decoder().get_input_embeddings().weight[:, 0] = 1000.0
    twin = HookedLVLM(hf_model, family=model.family)
    assert twin._seam.check_layers(hf_model.get_decoder()) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_family
def test_a_layer_that_reaches_nothing_is_named_in_any_dtype(name, dtype):
    model = hooked(name)
    hf_model = copy.deepcopy(model.hf_model).to(dtype)
    layer = model.attention_layers[-1]
    twin = HookedLVLM(hf_model, family=model.family)
    projection = twin._seam.modules[layer]
    with torch.no_grad():
        projection.o_proj.weight.zero_()
    problems = twin._seam.check_layers(hf_model.get_decoder())
    assert "does not change the logits" in problems[layer].reason
    assert list(problems) == [layer]
