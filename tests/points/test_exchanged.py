"""Points follow a model whose modules, sizes or dtype change after they were located."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from family_cases import CASES, batch, hooked
from tiny_models import IMAGES, QUESTIONS, build
from torch import nn

from rvelens import HookedLVLM

every_family = pytest.mark.parametrize("name", CASES)
SEVERAL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # attention once an image, or once a window
POINTS = ("attn.hook_q", "attn.hook_v", "hook_mlp_out")


class Doubled(nn.Module):
    """As an adapter: runs the module that was there, and changes what it returns."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, *args, **kwargs):
        y = self.base(*args, **kwargs)
        return (2 * y[0], *y[1:]) if isinstance(y, tuple) else 2 * y


def double(model, module):
    """Put `Doubled` in the place of a module; returns it."""
    path = next(n for n, m in model.hf_model.named_modules() if m is module)
    parent, _, name = path.rpartition(".")
    doubled = Doubled(module)
    setattr(model.hf_model.get_submodule(parent), name, doubled)
    return doubled


def first(y):
    return y[0] if isinstance(y, tuple) else y


@every_family
@torch.no_grad()
def test_points_follow_an_exchanged_module(name):
    model = hooked(name)
    inputs = batch(model)
    points = [f"blocks.1.{p}" for p in POINTS]
    model.run_with_cache(**inputs, names_filter=points)
    for n, point in enumerate(points):
        seen, expected = [], []
        hooks = [(point, lambda x, hook, seen=seen: seen.append(x.clone()))]
        module = model._seam.stream.find(point.removeprefix("blocks.")).module
        with model.hooks(hooks if n % 2 else []):  # on before the exchange, or after it
            doubled = double(model, module)
            handle = doubled.register_forward_hook(lambda m, a, y, e=expected: e.append(first(y)))
            with model.hooks([] if n % 2 else hooks):
                model(**inputs)
        handle.remove()
        assert torch.equal(seen[-1].flatten(), expected[-1].flatten()), point


@torch.no_grad()
def test_weights_follow_an_exchanged_module(model):
    old = model.blocks[1].attn.W_Q
    attention = model.hf_model.get_decoder().layers[1].self_attn
    attention.q_proj = nn.Linear(64, 64)
    assert not torch.equal(old, model.blocks[1].attn.W_Q)
    double(model, attention.o_proj)
    with pytest.raises(
        ValueError, match=r"blocks\.1\.attn\.hook_result .* cannot be shown exactly"
    ):
        model.blocks[1].attn.W_O  # noqa: B018


def tower_points(model):
    names = ("hook_resid_mid", "hook_mlp_out", "attn.hook_q", "attn.hook_v", "ln1.hook_scale")
    return [f"vision.blocks.0.{name}" for name in names]


# These two take images of zeros for padding.
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("idefics3", "smolvlm")])
@torch.no_grad()
def test_images_of_zeros_misplace_no_point_of_a_tower(name):
    model, fresh = hooked(name), hooked(name)
    inputs = batch(model)
    zeros = {k: x * 0 if "pixel_values" in k else x for k, x in inputs.items()}
    for point in tower_points(model):
        with suppress(ValueError):  # they tell no module from another
            model.run_with_cache(**zeros, names_filter=point)
        try:
            expected = fresh.run_with_cache(**inputs, names_filter=point)[1][point]
        except ValueError:
            continue
        assert torch.equal(model.run_with_cache(**inputs, names_filter=point)[1][point], expected)


@pytest.mark.parametrize("name", SEVERAL)
@torch.no_grad()
def test_pieces_are_counted_for_the_images_of_each_forward(name):
    model = hooked(name)
    point = "vision.blocks.1.attn.hook_pattern"
    several, single = batch(model), model.prepare(IMAGES[0], QUESTIONS[0])
    for inputs in (several, single, several, single):
        if inputs is single:
            _, cache = model.run_with_cache(**inputs, names_filter=point)
            assert cache[point].shape[2] == cache[point].shape[3]
        else:
            with pytest.raises(ValueError, match=r"calls its attention function \d+ times"):
                model.run_with_cache(**inputs, names_filter=point)


@pytest.mark.parametrize("name", ["llava", "internvl", *SEVERAL])
@torch.no_grad()
def test_a_filter_function_caches_what_can_be_shown(name):
    model = hooked(name)
    inputs = batch(model)
    expected = {f"blocks.{n}.attn.hook_pattern" for n in range(model.n_layers)}
    for _ in range(2):
        _, cache = model.run_with_cache(**inputs, names_filter=lambda n: n.endswith("pattern"))
        assert expected <= set(cache.keys())
        assert (len(cache) > len(expected)) == (name not in SEVERAL)
        _, cache = model.run_with_cache(**inputs, names_filter=lambda n: n.startswith("vision."))
        assert "vision.blocks.0.hook_resid_post" in cache
    _, hooks, _ = model.get_caching_hooks()
    with model.hooks(hooks):
        assert torch.equal(model(**inputs), model.hf_model(**inputs).logits)


@torch.no_grad()
def test_a_filter_function_that_leaves_nothing_is_answered():
    model = hooked("qwen2_vl")
    with pytest.raises(ValueError, match="none of which can be shown exactly for these images"):
        model.run_with_cache(
            **batch(model), names_filter=lambda n: n.startswith("vision.blocks.0.attn.hook_p")
        )
    # A hook that may edit is refused, and not left out.
    with (
        pytest.raises(ValueError, match=r"calls its attention function \d+ times"),
        model.hooks([(lambda n: n.endswith("hook_pattern"), lambda x, hook: None)]),
    ):
        model(**batch(model))


@torch.no_grad()
def test_an_exchanged_tower_is_named(model, inputs):
    hook = [("vision.blocks.0.attn.hook_pattern", lambda x, hook: None)]
    block = model._seam.tower.stack.blocks[0]
    other = build("llava")[0].get_encoder(modality="image").encoder.layers[0]
    with model.hooks(hook):
        block.self_attn = other.self_attn
        with pytest.raises(RuntimeError, match=r"hooks on vision\.blocks\.0\.attn\.hook_z did not"):
            model(**inputs)
    with pytest.raises(ValueError, match="the vision tower CLIPVisionModel is not the one"):
        model.add_hook(*hook[0])


@every_family
@torch.no_grad()
def test_scales_in_float64(name):
    model = hooked(name)
    model.hf_model.double()
    inputs = batch(model)
    _, cache = model.run_with_cache(**inputs, names_filter="blocks.1.ln1.hook_scale")
    norm = model._seam.stream.find("1.ln1.hook_scale").module
    _, stream = model.run_with_cache(**inputs, names_filter="blocks.1.hook_resid_pre")
    x = stream["resid_pre", 1]
    expected = (
        x.pow(2).mean(dim=-1, keepdim=True)
        + next(iter(getattr(norm, n) for n in ("variance_epsilon", "eps") if hasattr(norm, n)))
    ).sqrt()
    torch.testing.assert_close(cache["blocks.1.ln1.hook_scale"], expected)


@torch.no_grad()
def test_the_configuration_follows_the_model(model, inputs):
    assert model.cfg.d_vocab == model.W_U.shape[1]
    model.hf_model.resize_token_embeddings(300, mean_resizing=False)
    assert model.cfg.d_vocab == model.W_U.shape[1] == model(**inputs).shape[2] == 300


def test_a_part_without_logits_is_refused():
    hf_model, processor = build("llava")
    with pytest.raises(
        ValueError, match="a LlavaModel is wrapped, which makes no logits: expected"
    ):
        HookedLVLM.from_pretrained(hf_model.model, processor=processor)
    assert HookedLVLM.from_pretrained(hf_model, processor=processor).n_layers == 3


@pytest.mark.parametrize("point", ["attn.hook_attn_scores", "attn.hook_q", "hook_resid_mid"])
@pytest.mark.parametrize("change", [lambda x: x.to("meta"), lambda x: x.to_sparse()])
def test_another_device_or_layout_is_named(model, inputs, point, change):
    with (
        pytest.raises(
            ValueError, match=r"returned \(.*\) torch.float32 on .*: expected .* on cpu;"
        ),
        model.hooks([(f"blocks.1.{point}", lambda x, hook: change(x))]),
        torch.no_grad(),
    ):
        model(**inputs)
