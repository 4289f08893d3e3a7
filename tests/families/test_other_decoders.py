"""Decoders of other kinds: hybrids, sparse masks, shared keys, experts, windows, other projections.

What is expected comes from the Hugging Face modules themselves: from the functions that their eager
attention runs, and from the structure of their layers.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tiny_decoders import DECODERS, build
from torch import Tensor, nn

from rvelens import ARSProfile, HookedLVLM
from rvelens.heads.layers import parse_layers
from rvelens.hooks import rve_hooks
from rvelens.seam.points import ROWS

POINTS = ("hook_attn_scores", "hook_pattern", "hook_z")
HYBRIDS = ["qwen3_5", "minicpmv4_6", "nemotron_h_omni", "lfm2_vl"]
# Sparse masks: layers, and the keys at most that a row sees in them.
SPARSE = {"minimax_m3_vl": ([1, 2], 12), "mistral_large4": ([0, 1, 2, 3], 8)}
LOWEST = torch.finfo(torch.float32).min

every_decoder = pytest.mark.parametrize("name", DECODERS)


def hooked(name: str, implementation: str = "sdpa") -> tuple[HookedLVLM, dict[str, Tensor]]:
    """A tiny model, wrapped, and its inputs; its image tower is under SDPA."""
    hf_model, inputs = build(name)
    hf_model.get_decoder().set_attn_implementation(implementation)
    return HookedLVLM.from_pretrained(hf_model), inputs


def layers_of(hf_model: Any) -> nn.ModuleList:
    """The layers of a model's decoder."""
    lists = [
        module
        for path, module in hf_model.get_decoder().named_modules()
        if path.rpartition(".")[2] == "layers"
    ]
    assert len(lists) == 1
    return lists[0]


def attention_of(layer: nn.Module) -> nn.Module | None:
    """The attention module of a layer, told by its class; None where a layer mixes in another way."""
    found = [module for module in layer.modules() if type(module).__name__.endswith("Attention")]
    assert len(found) <= 1
    return found[0] if found else None


def point(layer: int, name: str) -> str:
    """The name of a hook point."""
    return f"blocks.{layer}.attn.{name}"


@every_decoder
def test_layers(name):
    model, _ = hooked(name)
    attentions = [attention_of(layer) for layer in layers_of(model.hf_model)]
    expected = tuple(n for n, module in enumerate(attentions) if module is not None)
    assert model.n_layers == len(attentions)
    assert model.attention_layers == expected
    assert (len(expected) < model.n_layers) == (name in HYBRIDS)
    kinds = [row.name.removeprefix("attn.") for row in ROWS if row.name.startswith("attn.")]
    points = {point(layer, kind) for layer in expected for kind in kinds}
    names = {name for name in model.hook_dict if name.startswith("blocks.")}
    assert {name for name in names if ".attn." in name} == points
    streams = {name for name in names if name.endswith("hook_resid_post")}
    assert streams == {f"blocks.{n}.hook_resid_post" for n in range(model.n_layers)}


@pytest.mark.parametrize("name", HYBRIDS)
def test_layers_without_attention_are_refused(name):
    model, inputs = hooked(name)
    without = sorted(set(range(model.n_layers)) - set(model.attention_layers))
    having = ",".join(map(str, model.attention_layers))
    for layer in without:
        for kind in POINTS:
            message = (
                rf"unknown hook name '{point(layer, kind)}': expected a point of a layer with "
                rf"attention, which are {having} of {model.n_layers}; choose one of these"
            )
            with pytest.raises(ValueError, match=message):
                model.add_hook(point(layer, kind), lambda x, hook: None)
            with pytest.raises(ValueError, match=message), model.hooks([(point(layer, kind), len)]):
                pass
            with pytest.raises(ValueError, match=message):
                model.run_with_cache(**inputs, names_filter=point(layer, kind))
        profile = profile_of(model)
        message = f"layers {layer} have no attention: expected layers among {having}"
        with pytest.raises(ValueError, match=message):
            rve_hooks(profile, [layer], k=3)
        with pytest.raises(ValueError, match=message):
            rve_hooks(profile, str(layer), k=3)


def profile_of(model: HookedLVLM) -> ARSProfile:
    """A profile of random scores, higher in the layers that have attention, as measured ones are."""
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(0))
    without = sorted(set(range(model.n_layers)) - set(model.attention_layers))
    scores[without] = 0
    return ARSProfile.from_scores(scores, attention_layers=model.attention_layers)


@every_decoder
@torch.no_grad()
def test_rve_chooses_layers_with_attention(name):
    model, inputs = hooked(name)
    profile = profile_of(model)
    assert profile.attention_layers == model.attention_layers
    by_layer = profile.scores.mean(dim=1)
    mean = by_layer[list(model.attention_layers)].mean()
    auto = [layer for layer in model.attention_layers if by_layer[layer] >= mean]
    preset = parse_layers("preset", profile, model.n_layers)
    assert preset
    assert set(preset) <= set(model.attention_layers)
    unhooked, cache = model.run_with_cache(**inputs)
    image = model.tokens.image
    # The windows of some layers end behind the image.
    sees_image = {
        layer: bool((cache[point(layer, "hook_attn_scores")][:, 0, -1] > LOWEST)[image].any())
        for layer in model.attention_layers
    }
    for layers, expected in (("auto", auto), ("preset", preset)):
        hooks = rve_hooks(profile, layers, k=3, alpha=0.3, denoise=False)
        assert [name for name, _ in hooks] == [
            point(layer, "hook_attn_scores") for layer in expected
        ]
        with model.hooks(hooks):
            difference = unlike(model(**inputs)[:, -1], unhooked[:, -1])
        assert (difference > 1e-3) == any(sees_image[layer] for layer in expected)


def eager_calls(
    hf_model: Any, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> dict[int, dict[str, Tensor]]:
    """What the model's own eager attention function is given and returns, by layer.

    Scores are computed here, from queries, keys and mask.
    """
    hf_model.get_decoder().set_attn_implementation("eager")
    modules = [attention_of(layer) for layer in layers_of(hf_model)]
    kinds = {type(module) for module in modules if module is not None}
    found: dict[int, dict[str, Tensor]] = {}

    def note(function: Any) -> Any:
        def eager(module, query, key, value, attention_mask, scaling=None, **kwargs):
            z, weights = function(
                module, query, key, value, attention_mask, scaling=scaling, **kwargs
            )
            if module in modules:
                scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
                keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
                scores = torch.einsum("bhqd,bhkd->bhqk", query, keys) * scaling
                hidden = attention_mask <= LOWEST
                found[modules.index(module)] = {
                    "scores": scores.masked_fill(hidden.expand_as(scores), LOWEST),
                    "pattern": weights,
                    "z": z,
                }
            return z, weights

        return eager

    for kind in kinds:
        names = inspect.unwrap(kind.forward).__globals__
        monkeypatch.setitem(
            names, "eager_attention_forward", note(names["eager_attention_forward"])
        )
    with torch.no_grad():
        hf_model(**inputs)
    monkeypatch.undo()
    return found


def unlike(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    assert a.shape == b.shape
    return float((a - b).abs().max())


@every_decoder
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("opened", [False, True])
@torch.no_grad()
def test_all_rows_are_eager_attention(name, implementation, opened, monkeypatch):
    """As the model computes them, and `opened`: as rvelens does where a hook edits them."""
    model, inputs = hooked(name, implementation)
    model.query_rows = "all"
    plain, _ = build(name)
    expected = eager_calls(plain, inputs, monkeypatch)
    assert tuple(expected) == model.attention_layers
    seen: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        seen[hook.name] = x.clone()

    def copy_of(x: Tensor, hook: Any) -> Tensor:
        return x.clone()

    points = [point(layer, kind) for layer in model.attention_layers for kind in POINTS]
    copied = [(p, copy_of) for p in points if opened and p.endswith("scores")]
    with model.hooks([*copied, *[(p, keep) for p in points]]):
        logits = model(**inputs)
    for layer, own in expected.items():
        scores, pattern, z = (seen[point(layer, kind)] for kind in POINTS)
        visible = own["scores"] > LOWEST
        assert torch.equal(scores > LOWEST, visible), layer
        assert unlike(scores.where(visible, 0), own["scores"].where(visible, 0)) < 1e-4, layer
        torch.testing.assert_close(pattern, own["pattern"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(z, own["z"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, plain(**inputs).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SPARSE)
@torch.no_grad()
def test_sparse_masks(name):
    """Rows see few keys; in MiniMax each key head sees others."""
    layers, n_most = SPARSE[name]
    model, inputs = hooked(name)
    model.query_rows = "all"
    _, cache = model.run_with_cache(**inputs)
    n = inputs["input_ids"].shape[1]
    for layer in model.attention_layers:
        seen = cache[point(layer, "hook_attn_scores")] > LOWEST
        assert torch.equal(seen, cache[point(layer, "hook_pattern")] > 0)
        sparse = bool((seen.sum(dim=-1) <= n_most).all())
        assert sparse == (layer in layers)
        by_head = seen.unflatten(1, (model.n_heads // 2, 2))
        if name == "minimax_m3_vl":
            assert torch.equal(by_head[:, :, 0], by_head[:, :, 1]), "heads that share a key head"
            assert bool((by_head[:, 0] != by_head[:, 1]).any()) == sparse
        if not sparse:
            assert torch.equal(seen[0, 0], torch.ones(n, n, dtype=torch.bool).tril())


@every_decoder
@pytest.mark.parametrize("rows", ["last", "all"])
@torch.no_grad()
def test_an_edit_of_each_layer_changes_the_logits(name, rows):
    model, inputs = hooked(name)
    model.query_rows = rows
    unhooked = model(**inputs)

    def even(pattern: Tensor, hook: Any) -> Tensor:
        visible = (pattern > 0).to(pattern.dtype)
        return visible / visible.sum(dim=-1, keepdim=True)

    for layer in model.attention_layers:
        with model.hooks([(point(layer, "hook_pattern"), even)]):
            edited = model(**inputs)
        assert unlike(edited[:, -1], unhooked[:, -1]) > 1e-3, layer
        if rows == "last":
            assert torch.equal(edited[:, :-1], unhooked[:, :-1]), layer
    assert torch.equal(model(**inputs), unhooked)


@every_decoder
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_self_check_finds_no_problem(name, implementation):
    model, _ = hooked(name, implementation)
    decoder = model.hf_model.get_decoder()
    assert model._seam.check_layers(decoder) == {}
    for layer in model.attention_layers:
        for kind in POINTS:
            model.add_hook(point(layer, kind), lambda x, hook: None)
