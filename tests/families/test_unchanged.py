"""A wrapped model without hooks is the model that was wrapped, bit for bit, whatever is asked of it.

What is expected comes from a plain model while nothing of rvelens is installed in transformers. A copy
of it is wrapped and asked the same, and once more after hooks were on and off. Whatever the plain model
refuses, the wrapped one refuses with the same words.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import pytest
import tiny_decoders
import tiny_models
import torch
import transformers as tf
from family_cases import CASES, hooked
from tiny_decoders import DECODERS
from tiny_inputs import IMAGES, QUESTIONS, TEXT
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rvelens import HookedLVLM
from rvelens.seam.look_up import hooks_of
from rvelens.seam.seam import Idle

NAMES = [*CASES, *DECODERS]
IMPLEMENTATIONS = ["sdpa", "eager"]
Inputs = dict[str, Tensor]
Generate = Callable[..., Any]
Way = Callable[[Any, Generate, Inputs, Inputs], Any]

every_model = pytest.mark.parametrize("name", NAMES)
both_implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def plain_model(name: str, implementation: str = "sdpa") -> Any:
    """A fresh tiny model as transformers gives it."""
    built = tiny_models.build(name) if name in CASES else tiny_decoders.build(name)
    built[0].set_attn_implementation(implementation)
    return built[0]


def wrapped(name: str, hf_model: Any) -> HookedLVLM:
    """The same model, wrapped."""
    family = "sharegpt4v" if name == "sharegpt4v" else None
    return HookedLVLM.from_pretrained(hf_model, family=family)


@cache
def inputs_of(name: str) -> tuple[Inputs, Inputs]:
    """Inputs of two prompts, and of the first alone."""
    if name in CASES:
        prepare = hooked(name).prepare
        return dict(prepare(IMAGES[:2], QUESTIONS[:2])), dict(prepare(IMAGES[0], QUESTIONS[0]))
    _, two = tiny_decoders.build(name)
    one = {
        key: x[: len(x) // 2] if len(x) > 1 else x[..., : x.shape[-1] // 2]
        for key, x in two.items()
    }
    return two, one


@contextmanager
def nothing_installed() -> Iterator[None]:
    """transformers without what rvelens installs in it."""
    look_up = ALL_ATTENTION_FUNCTIONS.__dict__.pop("get_interface", None)
    methods = {name: f for name, f in vars(Cache).items() if hasattr(f, "__wrapped__")}
    try:
        for name, method in methods.items():
            if "rvelens" in method.__code__.co_filename:
                setattr(Cache, name, method.__wrapped__)
        yield
    finally:
        for name, method in methods.items():
            setattr(Cache, name, method)
        if look_up is not None:
            ALL_ATTENTION_FUNCTIONS.get_interface = look_up


def leaves(output: Any, path: str = "") -> dict[str, Any]:
    """Tensors and numbers of a nested output by their place in it; of caches what their layers hold."""
    if isinstance(output, Cache):
        return leaves([vars(layer) for layer in output.layers], f"{path}.layers")
    if isinstance(output, Mapping | list | tuple):
        named = output.items() if isinstance(output, Mapping) else enumerate(output)
        found: dict[str, Any] = {}
        for key, value in named:
            found |= leaves(value, f"{path}.{key}")
        return found
    kept = output is None or isinstance(output, Tensor | int | float | str)
    return {path: output if kept else type(output)}


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal: every bit of their tensors, NaN included."""
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b) and str(a) == str(b)
    if type(a) is not type(b):
        return False
    first, second = leaves(a), leaves(b)
    return first.keys() == second.keys() and all(equal(x, second[k]) for k, x in first.items())


def equal(a: Any, b: Any) -> bool:
    """Whether two leaves are equal."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(bits(a), bits(b))


def bits(x: Tensor) -> Tensor:
    """The bytes of a tensor."""
    return x.detach().reshape(-1).contiguous().view(torch.uint8)


def forward(**options: Any) -> Way:
    """A forward with these options, without gradients."""

    @torch.no_grad()
    def way(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
        return hf_model(**two, **options)

    return way


def training(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
    """Logits and gradients of every weight in training mode; dropout draws from a fixed seed."""
    torch.manual_seed(0)
    hf_model.train()
    try:
        logits = hf_model(**two, use_cache=False).logits
        logits.logsumexp(dim=-1).sum().backward()
        grads = {name: weight.grad for name, weight in hf_model.named_parameters()}
    finally:
        hf_model.zero_grad(set_to_none=True)
        hf_model.eval()
    return {"logits": logits.detach(), **grads}


def other_inputs(change: Callable[[Any, Inputs], Any]) -> Way:
    """A forward on inputs that `change` makes of those of two prompts."""

    @torch.no_grad()
    def way(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
        return change(hf_model, dict(two))

    return way


def with_embeds(hf_model: Any, inputs: Inputs) -> Any:
    """Embeddings in the place of ids."""
    ids = inputs.pop("input_ids")
    return hf_model(inputs_embeds=hf_model.get_input_embeddings()(ids), **inputs)


def with_mask(mask: Callable[[Tensor], Tensor | None]) -> Way:
    """A forward with what `mask` makes of the attention mask."""
    return other_inputs(
        lambda hf_model, inputs: hf_model(
            **{**inputs, "attention_mask": mask(inputs["attention_mask"])}
        )
    )


def by_row_and_key(mask: Tensor) -> Tensor:
    """A causal mask of every row and key."""
    n = mask.shape[1]
    return torch.ones(len(mask), 1, n, n, dtype=torch.bool).tril()


HOW = {
    "max_new_tokens": 3,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
}


def generation(alone: bool = False, **options: Any) -> Way:
    """Three tokens for both prompts, or for the first alone, with what transformers reports of them."""

    def way(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
        torch.manual_seed(0)
        return generate(**(one if alone else two), **{**HOW, **options})

    return way


def assisted(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
    """Three tokens that another model drafts."""
    return generate(**one, **HOW, assistant_model=copy.deepcopy(hf_model))


def cached_prompt(hf_model: Any, generate: Generate, two: Inputs, one: Inputs) -> Any:
    """Two generations behind copies of a cache that holds all of a prompt but its last tokens."""
    n = two["input_ids"].shape[1] - 4
    by_key = {k: x for k, x in two.items() if x.shape == two["input_ids"].shape}
    with torch.no_grad():
        start = hf_model(**{**two, **{k: x[:, :n] for k, x in by_key.items()}}, use_cache=True)
    return [
        generate(**by_key, **HOW, past_key_values=copy.deepcopy(start.past_key_values))
        for _ in range(2)
    ]


FORWARDS = {
    "logits": forward(),
    "logits_to_keep": forward(logits_to_keep=2),
    "hidden states": forward(output_hidden_states=True),
    "tuple": forward(return_dict=False),
    "training": training,
}
# Under SDPA transformers returns no weights.
EAGER_FORWARDS = FORWARDS | {
    "attentions": forward(output_attentions=True),
    "attentions, tuple": forward(output_attentions=True, return_dict=False),
}
OTHER_INPUTS = {
    "no mask": with_mask(lambda mask: None),
    "boolean mask": with_mask(Tensor.bool),
    "mask by row and key": with_mask(by_row_and_key),
    "embeddings": other_inputs(with_embeds),
    "ids by position": other_inputs(lambda m, x: m(x.pop("input_ids"), **x)),
    "labels": other_inputs(lambda m, x: m(**x, labels=x["input_ids"])),
    "decoder alone": other_inputs(lambda m, x: m.get_decoder()(input_ids=x["input_ids"] % 40)),
}
# transformers takes keys that a mask does not reach for padding.
SHORT_MASK = {"short mask": with_mask(lambda mask: mask[:, :-3])}
GENERATIONS = {
    "greedy": generation(),
    "beams": generation(num_beams=2, num_return_sequences=2),
}
SDPA_GENERATIONS = GENERATIONS | {
    "sampling": generation(do_sample=True, top_k=20),
    "static": generation(cache_implementation="static", disable_compile=True),
    "fp8 cache": generation(cache_implementation="quantized", cache_config={"backend": "fp8"}),
    "fp8 cache, beams": generation(
        num_beams=2, cache_implementation="quantized", cache_config={"backend": "fp8"}
    ),
    "cached prompt": cached_prompt,
    "prompt lookup": generation(alone=True, prompt_lookup_num_tokens=2),
    "assisted": assisted,
    "guidance": generation(alone=True, guidance_scale=1.5),
}
# What the plain models refuse in transformers 5.23, so that nothing passes for being refused.
QFORMERS = {"instructblip", "blip_2"}
STATEFUL = {"qwen3_5", "minicpmv4_6", "nemotron_h_omni"}
UNEXPANDED = {"llama4", "fuyu"}
ROPE_OF_THREE = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v_moe", "qwen3_5"}
NOT_FULL = set(DECODERS) - {"qwen3_vl_moe", "glm4v_moe", "blip_2", "fuyu"} | {"gemma3"}
REFUSED = {
    "beams": UNEXPANDED,
    "fp8 cache": NOT_FULL,
    "fp8 cache, beams": NOT_FULL | UNEXPANDED,
    "cached prompt": QFORMERS,
    "prompt lookup": STATEFUL,
    "assisted": QFORMERS | STATEFUL,
    "guidance": ROPE_OF_THREE,
    "mask by row and key": ROPE_OF_THREE | {"blip_2"},
    "embeddings": {"gemma4", "llama4", "blip_2"},
    "ids by position": QFORMERS,
    "short mask": ROPE_OF_THREE | {"gemma3"},
}


def outcomes(ways: Mapping[str, Way], hf_model: Any, generate: Generate, name: str) -> Any:
    """What a model returns, or raises, for every way."""
    two, one = inputs_of(name)
    found: dict[str, Any] = {}
    for way, ask in ways.items():
        try:
            found[way] = ask(hf_model, generate, two, one)
        except Exception as error:
            found[way] = error
    return found


def implementations(hf_model: Any) -> dict[str, Any]:
    """The attention and experts implementations in the configurations of a model and of its parts."""
    return {
        f"{path}.{key}": getattr(module.config, key, None)
        for path, module in hf_model.named_modules()
        if isinstance(module, tf.PreTrainedModel)
        for key in ("_attn_implementation", "_experts_implementation")
    }


def halve(x: Tensor, hook: Any) -> Tensor:
    """A hook that changes everything."""
    return x * 0.5


def points_of(model: HookedLVLM) -> list[str]:
    """Every point of the decoder that can be hooked exactly."""
    points = []
    for name in model.hook_dict:
        with suppress(ValueError):
            if not name.startswith("vision."):
                model.add_hook(name, look)
                points.append(name)
    model.reset_hooks()
    assert len(points) > 6 * len(model.attention_layers) + 2 * model.n_layers
    return points


@torch.no_grad()
def hook_and_unhook(model: HookedLVLM, name: str) -> None:
    """Put hooks that edit on every point, inside a context and without one, and take them off."""
    two, _ = inputs_of(name)
    unhooked = model(**two)
    points = points_of(model)
    with model.hooks([(point, halve) for point in points]):
        assert not torch.equal(model(**two)[:, -1], unhooked[:, -1])
    for point in points:
        model.add_hook(point, halve)
    model.generate(**two, max_new_tokens=2, do_sample=False)
    model.reset_hooks()


def changed(expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """The ways in which two models answered differently."""
    return [way for way in expected if not same(expected[way], got[way])]


def check_unchanged(ways: Mapping[str, Way], name: str, implementation: str = "sdpa") -> None:
    """Ask a plain model in every way, and its wrapped copy before and after it was hooked."""
    plain = plain_model(name, implementation)
    hf_model = copy.deepcopy(plain)
    with nothing_installed():
        expected = outcomes(ways, plain, plain.generate, name)
        names = implementations(plain)
    refused = {way: e for way, e in expected.items() if isinstance(e, Exception)}
    assert set(refused) == {way for way in ways if name in REFUSED.get(way, ())}, refused
    model = wrapped(name, hf_model)
    assert changed(expected, outcomes(ways, hf_model, model.generate, name)) == []
    assert implementations(hf_model) == names
    hook_and_unhook(model, name)
    assert changed(expected, outcomes(ways, hf_model, hf_model.generate, name)) == []
    assert implementations(hf_model) == names


@every_model
@both_implementations
def test_forwards(name, implementation):
    ways = {"sdpa": FORWARDS, "eager": EAGER_FORWARDS}
    check_unchanged(ways[implementation], name, implementation)


@every_model
@both_implementations
def test_generations(name, implementation):
    ways = {"sdpa": SDPA_GENERATIONS, "eager": GENERATIONS}
    check_unchanged(ways[implementation], name, implementation)


@pytest.mark.parametrize(
    "name",
    ["llava", "instructblip", "qwen2_5_vl", "gemma3", "paligemma", "qwen3_5", "gemma4", "blip_2"],
)
def test_other_inputs(name):
    check_unchanged(OTHER_INPUTS, name)


@pytest.mark.parametrize("name", ["llava", "lfm2_vl", "gemma3", "qwen2_vl"])
def test_a_mask_shorter_than_the_prompt(name):
    check_unchanged(SHORT_MASK, name)


@pytest.mark.parametrize("name", ["llava", "qwen3_5", "gemma4_moe"])
def test_activation_checkpointing(name):
    def checkpointed(hf_model: Any, *args: Any) -> Any:
        hf_model.activation_checkpointing_enable()
        try:
            return training(hf_model, *args)
        finally:
            hf_model.activation_checkpointing_disable()

    check_unchanged({"checkpointing": checkpointed}, name)


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "mistral3", "cohere2_vision"])
@pytest.mark.parametrize("static", [False, True])
def test_windows_are_in_caches(name, static):
    """What the generations above are compared on includes caches that slide."""
    options = {"cache_implementation": "static", "disable_compile": True} if static else {}
    two, _ = inputs_of(name)
    model = wrapped(name, plain_model(name))
    cache = model.generate(**two, **HOW, **options).past_key_values
    window = model.hf_model.config.get_text_config().sliding_window
    assert window < two["input_ids"].shape[1]
    assert any(layer.is_sliding for layer in cache.layers)


QUANTISED = {
    "quanto": {"nbits": 4, "residual_length": 2, "q_group_size": 32},
    "hqq": {"nbits": 4, "axis_key": 1, "axis_value": 1, "residual_length": 2, "q_group_size": 8},
}


@pytest.mark.parametrize("backend", QUANTISED)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_grouped_quantised_caches(name, backend):
    """The backends that need a package; the residual part of the cache is flushed in between."""
    package = {"quanto": "optimum"}.get(backend, backend)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{backend} is not installed")
    options = {
        "cache_implementation": "quantized",
        "cache_config": {"backend": backend, **QUANTISED[backend]},
    }

    def tokens_and_logits(*args: Any) -> Any:
        output = generation(**options)(*args)
        return {"tokens": output.sequences, "logits": output.logits}

    check_unchanged({backend: tokens_and_logits}, name)


def look(x: Tensor, hook: Any) -> None:
    """A hook that returns nothing."""
    hook.ctx["seen"] = tuple(x.shape)


def recorders(model: HookedLVLM) -> list[tuple[str, Any]]:
    """A hook on every point, that looks only."""
    return [(point, look) for point in points_of(model)]


@every_model
@both_implementations
@torch.no_grad()
def test_hooks_that_look_change_nothing(name, implementation):
    two, _ = inputs_of(name)
    plain = plain_model(name, implementation)
    model = wrapped(name, copy.deepcopy(plain))
    with nothing_installed():
        expected = plain(**two)
        generated = plain.generate(**two, **HOW)
    hooks = recorders(model)
    for rows in ("last", "all"):
        model.query_rows = rows
        with model.hooks(hooks):
            assert same(model.hf_model(**two), expected), rows
            seen = [model.hook_dict[point].ctx.get("seen") for point, _ in hooks]
            assert all(seen), "every hook ran"
    model.query_rows = "last"
    with model.hooks(recorders(model)):
        assert same(model.generate(**two, **HOW), generated)


def reloaded(hf_model: Any) -> dict[str, Any]:
    """Copies of a model, by how they were made."""
    file = io.BytesIO()
    torch.save(hf_model, file)
    file.seek(0)
    return {
        "deepcopy": copy.deepcopy(hf_model),
        "pickle": pickle.loads(pickle.dumps(hf_model)),
        "torch.save": torch.load(file, weights_only=False),
    }


def objects_of_rvelens(hf_model: Any) -> list[Any]:
    """What rvelens has put on the modules of a model, except torch hooks that do nothing."""
    found = []
    for module in hf_model.modules():
        held = [value for key, value in vars(module).items() if not key.startswith("_forward_")]
        held += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        found += [x for x in held if type(x).__module__.startswith("rvelens")]
        assert hooks_of(module) is None or hooks_of(module) in found
    return [x for x in found if not isinstance(x, Idle)]


@every_model
def test_copies_and_pickles_are_plain_models(name):
    two, _ = inputs_of(name)
    plain = plain_model(name)
    model = wrapped(name, copy.deepcopy(plain))
    with nothing_installed():
        generated = plain.generate(**two, **HOW)
    assert objects_of_rvelens(model.hf_model)
    calls = []
    with model.hooks(fwd_hooks=[(p, lambda x, hook: calls.append(1)) for p, _ in recorders(model)]):
        for how, copied in reloaded(model.hf_model).items():
            assert objects_of_rvelens(copied) == [], how
            assert same(copied.generate(**two, **HOW), generated), how
            assert calls == [], f"hooks on the original act in its {how}"
            again = wrapped(name, copied)
            again.add_hook(recorders(again)[0][0], halve)
            with torch.no_grad():
                again(**two)
            assert calls == [], f"hooks on a wrapped {how} act in the original"
        with torch.no_grad():
            model(**two)
        assert calls


@every_model
def test_the_modules_and_the_configuration_are_the_models_own(name):
    plain = plain_model(name)
    hf_model = copy.deepcopy(plain)
    model = wrapped(name, hf_model)
    hook_and_unhook(model, name)
    assert list(plain.state_dict()) == list(hf_model.state_dict())
    assert [n for n, _ in plain.named_modules()] == [n for n, _ in hf_model.named_modules()]
    assert plain.config.to_dict() == hf_model.config.to_dict()
    assert plain.generation_config.to_dict() == hf_model.generation_config.to_dict()


def llama() -> Any:
    """A tiny text model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT)).eval()


@pytest.mark.parametrize(
    ("name", "implementation"), [*((name, "sdpa") for name in NAMES), ("llava", "eager")]
)
@torch.no_grad()
def test_other_models_are_unaffected(name, implementation):
    """A model of the same class and a text model, beside a hooked model and inside one of its hooks."""
    two, _ = inputs_of(name)
    other, text = plain_model(name, implementation), llama()
    text.set_attn_implementation(implementation)
    words = {"input_ids": torch.arange(40, 60).reshape(2, 10)}
    model = wrapped(name, plain_model(name, implementation))

    def ask() -> list[Any]:
        # Dictionaries: of what the forwards return, cached keys included.
        return [dict(other(**two)), dict(text(**words))]

    with nothing_installed():
        expected = ask()
        generated = [other.generate(**two, **HOW), text.generate(**words, **HOW)]
    inside = []

    def ask_others(x: Tensor, hook: Any) -> Tensor:
        inside.append(ask())
        return x * 0.5

    points = points_of(model)
    with model.hooks([(points[0], ask_others), *[(point, halve) for point in points[1:]]]):
        model(**two)
        assert same(ask(), expected)
        assert same([other.generate(**two, **HOW), text.generate(**words, **HOW)], generated)
    assert len(inside) == 1
    assert same(inside[0], expected)
    assert same(ask(), expected)


@torch.no_grad()
def test_two_threads_run_a_model_without_hooks(plain):
    """One forward waits inside the decoder until another thread's is done."""
    two, _ = inputs_of("llava")
    with nothing_installed():
        expected = plain(**two).logits
    model = HookedLVLM.from_pretrained(plain)
    first_is_inside, second_is_done = threading.Event(), threading.Event()
    outer = threading.current_thread()

    def wait(module: Any, args: Any) -> None:
        if threading.current_thread() is not outer:
            first_is_inside.set()
            assert second_is_done.wait(10)

    model.hf_model.get_decoder().layers[1].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(torch.no_grad()(model.hf_model), **two)
        assert first_is_inside.wait(10)
        try:
            second = model.hf_model(**two)
        finally:
            second_is_done.set()
        assert torch.equal(second.logits, expected)
        assert torch.equal(first.result().logits, expected)


@pytest.fixture
def registered():
    """The name of an attention function of somebody else's."""
    AttentionInterface.register("somebody's", somebodys_attention)
    AttentionMaskInterface.register("somebody's", tf.masking_utils.eager_mask)
    yield "somebody's"
    del AttentionInterface._global_mapping["somebody's"]
    del AttentionMaskInterface._global_mapping["somebody's"]


def somebodys_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Attention whose weights are uniform over the keys that the mask shows."""
    key_of = query.shape[1] // value.shape[1]
    value = value.repeat_interleave(key_of, dim=1)
    scores = query.new_zeros(*query.shape[:3], value.shape[2])
    scores = scores if attention_mask is None else scores + attention_mask[..., : value.shape[2]]
    z = scores.softmax(dim=-1) @ value
    return z.transpose(1, 2).contiguous(), None


@torch.no_grad()
def test_a_registered_attention_function(plain, registered):
    two, _ = inputs_of("llava")
    model = wrapped("llava", copy.deepcopy(plain))
    with nothing_installed():
        sdpa = plain(**two)
        plain.set_attn_implementation(registered)
        expected = plain(**two)
        assert not same(sdpa, expected)
    model.hf_model.set_attn_implementation(registered)
    assert same(model.hf_model(**two), expected)
    model.hf_model.set_attn_implementation("sdpa")
    assert same(model.hf_model(**two), sdpa)


@every_model
@torch.no_grad()
def test_the_implementation_can_be_changed_after_wrapping(name):
    two, _ = inputs_of(name)
    plain = plain_model(name)
    hf_model = copy.deepcopy(plain)
    expected = {}
    with nothing_installed():
        for implementation in ("eager", "sdpa"):
            plain.set_attn_implementation(implementation)
            expected[implementation] = plain(**two), implementations(plain)
        with pytest.raises(ValueError, match="nonsense") as refusal:
            plain.set_attn_implementation("nonsense")
    wrapped(name, hf_model)
    for implementation, (output, names) in expected.items():
        hf_model.set_attn_implementation(implementation)
        assert same(hf_model(**two), output)
        assert implementations(hf_model) == names
    with pytest.raises(ValueError, match="nonsense") as refusal_when_wrapped:
        hf_model.set_attn_implementation("nonsense")
    assert str(refusal_when_wrapped.value) == str(refusal.value)


def test_the_table_is_read_as_before(model, monkeypatch):
    """By index, `get`, `in` and its keys, and as another instance, as some models read it."""
    table = ALL_ATTENTION_FUNCTIONS

    def read() -> dict[str, Any]:
        return {
            "keys": table.valid_keys(),
            "iterated": list(table),
            "length": len(table),
            "by index": [table[key] for key in table],
            "by get": [table.get(key) for key in (*table, "eager", "nonsense")],
            "in": [key in table for key in (*table, "eager", "nonsense")],
            "type": type(table),
            "attributes": getattr(table, "sdpa", "none"),
        }

    wrapped_read = read()
    assert "get_interface" in vars(table)
    with nothing_installed():
        assert "get_interface" not in vars(table)
        assert read() == wrapped_read
    with pytest.raises(KeyError, match="`nonsense` is not a valid attention implementation"):
        table.get_interface("nonsense", somebodys_attention)
    # A function that a modeling file puts in a table of its own, or in this one.
    own = AttentionInterface()
    own["somebody's"] = somebodys_attention
    assert own.get_interface("somebody's", print) is somebodys_attention
    assert own.get_interface("eager", somebodys_attention) is somebodys_attention
    monkeypatch.setitem(table._local_mapping, "somebody's", somebodys_attention)
    assert "somebody's" in table
    assert table["somebody's"] is somebodys_attention
    x = torch.randn(1, 2, 3, 4)
    for name in ("somebody's", "eager", None):
        z, _ = table.get_interface(name, somebodys_attention)(torch.nn.Module(), x, x, x, None)
        assert torch.equal(z, somebodys_attention(None, x, x, x, None)[0])
