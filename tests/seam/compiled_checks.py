"""Decode steps behind a static cache compile to one graph, with and without hooks.

`test_compiled.py` runs this file in processes of its own, since jaxtyping's run-time checks, which the
other tests run under, cannot be compiled.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
import transformers
from family_cases import CASES, batch, hooked, profile_of

from rvelens import HookedLVLM
from rvelens.hooks import (
    devils_hooks,
    head_mask_hooks,
    pai_hooks,
    region_hooks,
    rve_hooks,
    tokens_of,
    vaf_hooks,
)
from rvelens.speed.counts import count_graph_breaks

# torch warns of its own internals as it traces.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
SCORES = "blocks.1.attn.hook_attn_scores"
ONE_FORWARD = [name for name in CASES if name != "instructblip"]  # whose forward wants pixels


def settings(model: HookedLVLM) -> dict[str, list[Any]]:
    layers = list(model.attention_layers)
    rve = rve_hooks(profile_of(model), layers, k=3, alpha=0.3)
    return {
        "none": [],
        "rve": rve,
        "head mask": head_mask_hooks({1: [2, 3]}),
        "vaf": vaf_hooks(model.n_layers, [1]),
        "pai": pai_hooks(model.n_layers, layers),
        "devils": devils_hooks(model.n_layers, layers),
        "several": [*rve, *head_mask_hooks({0: [1]}), *pai_hooks(model.n_layers, [2])],
    }


def decode_step(model: HookedLVLM) -> dict[str, Any]:
    """One token behind a prompt in a static cache, filled under the hooks that are on."""
    inputs = batch(model)
    n_prompt = inputs["input_ids"].shape[1]
    config = model.hf_model.config.get_text_config()
    cache = transformers.StaticCache(config=config, max_cache_len=n_prompt + 8)
    logits = model(**inputs, past_key_values=cache, use_cache=True)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
    return {
        "input_ids": logits[:, -1:].argmax(dim=-1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(dim=1) - 1)[:, -1:],
        "past_key_values": cache,
        "use_cache": True,
    }


def fork(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "past_key_values": copy.deepcopy(step["past_key_values"])}


def compiled(call: Any) -> Any:
    return torch.compile(call, backend="eager")


def graph_breaks(model: HookedLVLM) -> int:
    return count_graph_breaks(model.hf_model, batch(model))


def compiled_logits(model: HookedLVLM, step: dict[str, Any]) -> torch.Tensor:
    torch._dynamo.reset()
    return compiled(model.hf_model.__call__)(**fork(step)).logits


def check_one_graph(model: HookedLVLM) -> torch.Tensor:
    """Compare a compiled decode step with an eager one, under the hooks that are on; its logits."""
    step = decode_step(model)
    expected = model.hf_model(**fork(step)).logits
    got = compiled_logits(model, step)
    assert graph_breaks(model) == 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    return got


# Every family under several methods; four kinds of decoders without hooks and under VAF.
KINDS = [
    *((name, "several") for name in ONE_FORWARD),
    *((name, k) for name in ("llava", "gemma3", "qwen2_5_vl", "idefics3") for k in ("none", "vaf")),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_decode_step_is_one_graph(name, kind):
    model = hooked(name)
    model.query_rows = "all" if kind == "vaf" else "last"
    with model.hooks(settings(model)[kind]):
        check_one_graph(model)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["none", "several", "vaf"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_decode_step_of_the_wrapper_is_one_graph(name, kind):
    """`HookedLVLM.forward`, with what it checks, where a user compiles the wrapper."""
    model = hooked(name)
    model.query_rows = "all" if kind == "vaf" else "last"
    with model.hooks(settings(model)[kind]):
        step = decode_step(model)
        expected = model(**fork(step))
        torch._dynamo.reset()
        got = torch.compile(model.__call__, backend="eager", fullgraph=True)(**fork(step))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rve", "head mask", "pai", "devils", "region"])
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_each_method_is_one_graph(name, kind):
    """Layers 0 and 1 of gemma3 have a window that slides past the image."""
    model = hooked(name)
    region = torch.rand(3, max(model.token_map(batch(model)).n_image)) > 0.5
    hooks = {**settings(model), "region": region_hooks(region, [0, 1, 2])}[kind]
    with model.hooks(hooks):
        got = check_one_graph(model)
    assert not torch.allclose(got, model.hf_model(**decode_step(model)).logits, atol=1e-4)


def generate(model: HookedLVLM, inputs: Any, compile_it: bool, **options: Any) -> Any:
    config = transformers.generation.CompileConfig(backend="eager", fullgraph=False)
    config._compile_all_devices = compile_it
    return model.generate(
        **inputs, do_sample=False, max_new_tokens=6, cache_implementation="static",
        compile_config=config, disable_compile=not compile_it, **options,
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_generations_compiled_and_eager_are_the_same_as_hooks_come_and_go(name):
    torch._dynamo.reset()
    model = hooked(name)
    inputs = batch(model)
    known = settings(model)
    expected = {}
    for kind in ("none", "rve", "head mask"):
        with model.hooks(known[kind]):
            expected[kind] = generate(model, inputs, compile_it=False)
            dynamic = model.generate(**inputs, do_sample=False, max_new_tokens=6)
            assert torch.equal(expected[kind], dynamic)
    for kind in ("none", "rve", "head mask", "none"):
        with model.hooks(known[kind]):
            assert torch.equal(generate(model, inputs, compile_it=True), expected[kind]), kind
    assert not torch.equal(expected["none"], expected["rve"])


@torch.no_grad()
def test_one_compiled_function_notices_hooks_that_come_and_go(model):
    torch._dynamo.reset()
    call = compiled(model.hf_model.__call__)
    known = settings(model)
    step = decode_step(model)
    order = ("none", "rve", "none", "pai", "rve", "head mask", "none")
    for kind in order:
        with model.hooks(known[kind]):
            expected = model.hf_model(**fork(step)).logits
            torch.testing.assert_close(call(**fork(step)).logits, expected, rtol=0, atol=1e-5)
    weaker = rve_hooks(profile_of(model), [0, 1, 2], k=3, alpha=0.1, beta=0.5)
    for hooks in (known["rve"], weaker):  # the same kind of hook with other settings
        with model.hooks(hooks):
            expected = model.hf_model(**fork(step)).logits
            torch.testing.assert_close(call(**fork(step)).logits, expected, rtol=0, atol=1e-5)


def doubled(x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x * 2


def halved(x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x / 2


STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out",
          "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_rot_q", "attn.hook_result",
          "ln1.hook_scale")  # fmt: skip


@torch.no_grad()
def test_one_compiled_function_notices_hooks_of_the_stream(model):
    torch._dynamo.reset()
    call = compiled(model.hf_model.__call__)
    step = decode_step(model)
    plain = model.hf_model(**fork(step)).logits
    orders = [[], *[[(f"blocks.1.{p}", doubled)] for p in STREAM[:4]], [],
              [("blocks.1.hook_resid_mid", halved)], [("blocks.1.hook_resid_mid", doubled)],
              [("blocks.2.hook_mlp_out", doubled), ("blocks.1.attn.hook_z", halved)], []]  # fmt: skip
    for hooks in orders:
        with model.hooks(hooks):
            expected = model.hf_model(**fork(step)).logits
            assert torch.equal(expected, plain) == (not hooks)
            torch.testing.assert_close(call(**fork(step)).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("point", STREAM)
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_step_with_a_hook_of_the_stream_is_one_graph(name, point):
    model = hooked(name)
    with model.hooks([(f"blocks.1.{point}", doubled)]):
        check_one_graph(model)


@torch.no_grad()
def test_hooks_of_the_stream_come_back_to_the_same_graphs(model):
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, example_inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    call = torch.compile(model.hf_model.__call__, backend=backend)
    step = decode_step(model)
    counts = []
    for _ in range(6):
        for hooks in ([], [("blocks.1.hook_resid_mid", doubled)]):
            with model.hooks(hooks):
                call(**fork(step))
        counts.append(len(graphs))
    # Once more, since the first trace finds the point without a token map.
    assert counts == [2, 3, 3, 3, 3, 3]


@torch.no_grad()
def test_a_hook_of_ones_own_breaks_the_graph_at_its_own_layer_only(model):
    seen = []

    def own(scores, hook):
        seen.append(float(scores.max()))  # which waits for the device

    with model.hooks([(SCORES, own), *settings(model)["several"]]):
        step = decode_step(model)
        expected = model.hf_model(**fork(step)).logits
        got = compiled_logits(model, step)
        assert graph_breaks(model) > 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    breaks = torch._dynamo.utils.counters["graph_break"]  # as the count above left them
    assert breaks
    assert all("item" in reason for reason in breaks), breaks
    assert len(seen) >= 3


@torch.no_grad()
def test_nan_inside_a_graph_is_named(model):
    """The hook turns wrong at the second token, which only compiled steps see."""
    torch._dynamo.reset()
    inputs = batch(model)

    def poison(pattern, hook):
        tokens = tokens_of(hook)
        return pattern / 0 if tokens.length is not None else pattern.clone()

    with (
        pytest.raises(ValueError, match=r"the attention of blocks\.1\.attn is not finite"),
        model.hooks([("blocks.1.attn.hook_pattern", poison)]),
    ):
        generate(model, inputs, compile_it=True)
    assert torch.isfinite(model(**inputs)).all()
    with model.hooks(settings(model)["rve"]):
        generate(model, inputs, compile_it=True)


@torch.no_grad()
def test_a_static_cache_does_not_change_what_a_hook_reads(model):
    inputs = batch(model)
    pages = []

    def read(scores, hook):
        tokens = tokens_of(hook)
        image = tokens.image_keys(scores.shape[-1], scores.device)
        pages.append((tokens.n_keys, tokens.n_known, tokens.last.tolist(), image.sum().item()))

    with model.hooks([(SCORES, read)]):
        model.generate(**inputs, do_sample=False, max_new_tokens=6)
        dynamic, pages = pages, []
        generate(model, inputs, compile_it=False)
    assert pages == dynamic


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rve", "vaf", "own", "features"])
def test_a_compiled_prompt_runs_its_hooks(model, kind):
    """The whole model compiled: hooked layers of a prompt or behind a growing cache break the graph."""
    torch._dynamo.reset()
    known = settings(model) | {
        "own": [(SCORES, lambda scores, hook: scores * 2)],
        "features": [("hook_image_features", doubled)],
    }
    hooks = known[kind]
    model.query_rows = "all" if kind == "vaf" else "last"
    inputs = batch(model)
    call = compiled(model.hf_model.__call__)
    plain = call(**inputs).logits
    with model.hooks(hooks):
        expected = model.hf_model(**inputs)
        got = call(**inputs)
        torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-5)
        assert (got.logits - plain).abs().max() > 1e-3
        for _ in range(3):
            token = expected.logits[:, -1:].argmax(dim=-1)
            expected = model.hf_model(input_ids=token, past_key_values=expected.past_key_values)
            got = call(input_ids=token, past_key_values=got.past_key_values)
            torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(call(**inputs).logits, plain, rtol=0, atol=1e-5)
    assert not torch.allclose(plain, model.run_with_hooks(**inputs, fwd_hooks=hooks), atol=1e-4)


@torch.no_grad()
def test_every_way_to_turn_a_hook_on_or_off_is_noticed(model):
    """Torch's own hooks, handles, conversions and aliases: eager and compiled stay the same."""
    torch._dynamo.reset()
    call = compiled(model.hf_model.__call__)
    step = decode_step(model)
    point = model.hook_dict["blocks.1.attn.hook_z"]
    names = []

    def same() -> torch.Tensor:
        expected = model.hf_model(**fork(step)).logits
        torch.testing.assert_close(call(**fork(step)).logits, expected, rtol=0, atol=1e-5)
        return expected

    plain = same()
    own = point.register_forward_hook(lambda module, args, z: z * 2)
    assert not torch.allclose(same(), plain, atol=1e-4)
    own.remove()
    assert torch.equal(same(), plain)
    before = point.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    assert not torch.allclose(same(), plain, atol=1e-4)
    before.remove()
    assert torch.equal(same(), plain)
    handle = point.add_hook(lambda z, hook: z * 2)
    assert not torch.allclose(same(), plain, atol=1e-4)
    handle.hook.remove()
    assert torch.equal(same(), plain)
    point.fwd_hooks.clear()
    point.add_hook(lambda z, hook: names.append(hook.name), alias_names=["one", "other"])
    assert torch.equal(same(), plain)
    assert names == ["one", "other"] * 2
    model.reset_hooks()
    twice = point.add_hook(lambda z, hook: z * 2)
    first = point.add_hook(lambda z, hook: z + 1, prepend=True)
    same()
    first.hook.remove()
    same()
    twice.hook.remove()
    assert torch.equal(same(), plain)
    model.reset_hooks()


@torch.no_grad()
def test_nan_is_named_where_only_compiled_steps_were_hooked(model):
    """The prompt runs without hooks, so no hooked step was eager before the compiled ones."""
    torch._dynamo.reset()
    step = decode_step(model)
    with (
        pytest.raises(ValueError, match=r"the attention of blocks\.1\.attn is not finite"),
        model.hooks([("blocks.1.attn.hook_z", lambda z, hook: z / 0)]),
    ):
        compiled(model.hf_model.__call__)(**step)


@torch.no_grad()
@pytest.mark.parametrize("point", ["hook_resid_mid"])
def test_a_compiled_prompt_with_hooks_of_the_stream_is_right_or_refused(model, point):
    """torch keeps no guard on hooks of modules: a graph of another prompt may leave them out."""
    torch._dynamo.reset()
    inputs = batch(model)
    call = compiled(model.hf_model.__call__)
    plain = call(**inputs).logits
    with model.hooks([(f"blocks.1.{point}", doubled)]):
        expected = model.hf_model(**inputs).logits
        for _ in range(2):
            missed = pytest.raises(RuntimeError, match=r"did not run: .* run prompts uncompiled")
            with contextlib.suppress(pytest.fail.Exception), missed:
                got = call(**inputs).logits
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(call(**inputs).logits, plain, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3"])
def test_a_wrapped_model_without_hooks_compiles_as_one_graph_where_it_did_before(name):
    """A text prompt, its generation with a compiled forward, and its export."""
    model = hooked(name)
    hf_model = model.hf_model
    ids = torch.randint(40, 60, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    expected = hf_model(**inputs).logits
    torch._dynamo.reset()
    whole = torch.compile(hf_model, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(**inputs).logits, expected, rtol=0, atol=1e-5)
    exported = torch.export.export(hf_model, (), inputs, strict=False).module()
    torch.testing.assert_close(exported(**inputs).logits, expected, rtol=0, atol=1e-5)
    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 2)]):
        hooked_logits = hf_model(**inputs).logits
        part = torch.compile(hf_model, backend="eager")
        torch.testing.assert_close(part(**inputs).logits, hooked_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole(**inputs).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hooks_behind_a_prompt_that_was_compiled_without_any_find_no_map(model):
    """Nothing followed the prompt, so the cache has no map: refused, never wrong."""
    inputs = batch(model)
    torch._dynamo.reset()
    static = transformers.StaticCache(
        config=model.hf_model.config.get_text_config(), max_cache_len=128
    )
    compiled(model.hf_model.__call__)(**inputs, past_key_values=static)
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    with (
        model.hooks(settings(model)["rve"]),
        pytest.raises(ValueError, match="has no token map"),
    ):
        model.hf_model(
            input_ids=inputs["input_ids"][:, -1:], attention_mask=mask, past_key_values=static
        )


@torch.no_grad()
@pytest.mark.parametrize("steps", ["prefill", "decode", "3-", "2-4"])
def test_a_step_of_a_restricted_hook_is_one_graph(model, steps):
    hooks = pai_hooks(model.n_layers, [0, 2], alpha=0.9, steps=steps)
    with model.hooks(hooks):
        check_one_graph(model)


@torch.no_grad()
@pytest.mark.parametrize("steps", ["prefill", "decode", "3-", "2-4"])
def test_restricted_generations_compiled_and_eager_are_the_same(steps):
    torch._dynamo.reset()
    model = hooked("llava")
    inputs = batch(model)
    with model.hooks(pai_hooks(model.n_layers, [0, 2], alpha=0.9, steps=steps)):
        expected = generate(model, inputs, compile_it=False)
        assert torch.equal(generate(model, inputs, compile_it=True), expected)
        dynamic = model.generate(**inputs, do_sample=False, max_new_tokens=6)
        assert torch.equal(expected, dynamic)
