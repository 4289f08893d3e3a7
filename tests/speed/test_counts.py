"""Kernels and float32 copies of one decode step under RVE, in a bfloat16 model of 16 layers."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from rvelens import HookedLVLM
from rvelens import speed as bench
from rvelens.heads.layers import parse_layers
from rvelens.speed import generation
from rvelens.speed.counts import VIEW_OPERATIONS, count_kernels, decode_step
from rvelens.speed.shapes import prompt_of

DEEP = bench.Shape(16, 128, 8, 128, 1, 64, torch.bfloat16, text_tokens=24)


@pytest.fixture(scope="module")
def inputs(settings):
    return prompt_of(settings[bench.PLAIN].model, DEEP.text_tokens)


@pytest.fixture(scope="module")
def settings():
    model = bench.build_random(DEEP, "cpu")
    hooked = HookedLVLM(generation.twin(model))
    layers = parse_layers("preset", None, hooked.n_layers)
    assert len(layers) == 9
    found, missing = generation._settings(model, hooked, prompt_of(model, DEEP.text_tokens), layers)
    assert not missing
    return found


@pytest.fixture(scope="module")
def kernels(settings, inputs):
    found = {}
    for name, setting in settings.items():
        with setting.hooks():
            found[name] = count_kernels(setting.model, inputs)
    return found


def test_without_hooks_the_kernels_are_those_of_the_plain_model(kernels):
    assert kernels[bench.UNHOOKED] == kernels[bench.PLAIN] > 16 * 30


def test_rve_adds_less_than_a_sixth_to_the_kernels(kernels):
    assert kernels[bench.UNHOOKED] < kernels[bench.RVE] <= 1.15 * kernels[bench.UNHOOKED]


def test_the_bridge_takes_more(kernels):
    assert kernels[bench.BRIDGE] > 1.3 * kernels[bench.RVE]


class Watch(TorchDispatchMode):
    """Which operations ran, and the float32 copies of keys and values that are alive.

    Attributes:
        most: the most copies of keys that were alive at once.
        keys, values: how many copies were made in all.
    """

    def __init__(self, cache):
        super().__init__()
        self.cache = cache
        self.views, self.others = set(), set()
        self.alive = self.most = self.keys = self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        (self.views if func.is_view else self.others).add(str(func.overloadpacket))
        into = func is torch.ops.aten.copy_.default  # its result is no new tensor
        before = set() if into else {_storage(x) for x in given}
        result = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        for x in made:
            if x.dtype == torch.float32 and _storage(x) not in before:
                self._note(x, [y for y in given if y.dtype == torch.bfloat16])
        return result

    def _note(self, made, sources):
        for layer in self.cache.layers:
            # As large as the keys of a layer and made from them, by whatever operation.
            like = [y for y in sources if made.numel() == y.numel() == layer.keys.numel()]
            self.values += any(_storage(y) == _storage(layer.values) for y in like)
            if any(_storage(y) == _storage(layer.keys) for y in like):
                self.keys += 1
                self.alive += 1
                self.most = max(self.most, self.alive)
                weakref.finalize(made.untyped_storage(), self._free)

    def _free(self):
        self.alive -= 1


def _storage(x):
    return x.untyped_storage()._cdata


@pytest.fixture(scope="module")
def watched(settings, inputs):
    found = {}
    for name in (bench.UNHOOKED, bench.RVE, bench.BRIDGE):
        model = settings[name].model
        cache = DynamicCache(config=model.config.get_text_config())
        with torch.no_grad(), settings[name].hooks():
            step = decode_step(model, inputs, cache)
            with Watch(cache) as found[name]:
                model(**step)
    return found


def test_one_float32_copy_of_a_layers_keys_is_alive_at_a_time_and_none_of_values(watched):
    watch = watched[bench.RVE]
    assert (watch.keys, watch.most, watch.alive, watch.values) == (9, 1, 0, 0)


def test_without_hooks_nothing_is_copied(watched):
    assert (watched[bench.UNHOOKED].keys, watched[bench.UNHOOKED].values) == (0, 0)


def test_copies_that_stay_or_are_of_values_would_be_noticed():
    cache = DynamicCache()
    keys, values = cache.update(*torch.zeros(2, 1, 2, 3, 4, dtype=torch.bfloat16), 0)
    with Watch(cache) as watch:
        first, second = keys.float(), keys.to(torch.float32)
        third = torch.empty_like(first).copy_(values)
        fourth = values.flatten(0, 1).float().transpose(1, 2)
    assert (watch.keys, watch.most, watch.alive, watch.values) == (2, 2, 2, 2)
    del first, second, third, fourth
    assert watch.alive == 0


def test_views_are_listed_by_name_and_nothing_else_is(watched):
    for watch in watched.values():
        assert watch.views <= VIEW_OPERATIONS
        # It hands memory on as a view does, and has no base only for autograd's sake.
        assert watch.others & VIEW_OPERATIONS <= {"aten._unsafe_view"}
