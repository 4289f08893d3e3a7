"""Forwards of several threads on one model: hooks run in the thread that has them, or are refused."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from family_cases import CASES, batch, hooked, profile_of

from rvelens.hooks import rve_hooks


@pytest.mark.parametrize("name", CASES)
def test_hooks_that_come_on_do_not_reach_another_threads_forward(name):
    """The other thread's forward began without hooks, and waits in its second layer."""
    model = hooked(name)
    inputs = batch(model)
    in_layer, go_on = threading.Event(), threading.Event()

    def wait(*_):
        if threading.current_thread() is not threading.main_thread():
            in_layer.set()
            assert go_on.wait(60)

    @torch.no_grad()
    def forward():
        return model.hf_model(**inputs).logits

    expected = forward()
    handle = model.hf_model.get_decoder().layers[0].register_forward_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(forward)
        assert in_layer.wait(60)
        with model.hooks(rve_hooks(profile_of(model), range(model.n_layers), k=3, alpha=0.3)):
            mine = forward()
            go_on.set()
            assert torch.equal(other.result(), expected)
    handle.remove()
    assert not torch.allclose(mine, expected, atol=1e-4)
    assert torch.equal(forward(), expected)


@torch.no_grad()
def test_two_hooked_forwards_at_once_are_refused(model, inputs):
    with ThreadPoolExecutor(1) as pool:

        def start_another(z, hook):
            run = torch.no_grad()(lambda: model.hf_model(**inputs))
            with pytest.raises(RuntimeError, match=r"another thread runs the same .*use a lock"):
                pool.submit(run).result()

        with model.hooks([("blocks.0.attn.hook_z", start_another)]):
            model(**inputs)
        with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 2)]):
            worker = pool.submit(torch.no_grad()(lambda: model(**inputs))).result()
            assert torch.equal(worker, model(**inputs))


@torch.no_grad()
def test_a_thread_that_died_in_a_forward_blocks_nobody(model, inputs):
    def die(z, hook):
        raise SystemExit

    @torch.no_grad()
    def interrupted():
        with suppress(SystemExit):
            model.hf_model(**inputs)

    with model.hooks([("blocks.0.attn.hook_z", die)]):
        thread = threading.Thread(target=interrupted)
        thread.start()
        thread.join()
    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 2)]):
        assert torch.isfinite(model(**inputs)).all()


@torch.no_grad()
def test_hooks_turned_on_within_a_forward_are_named(model, inputs):
    def turn_on(*_):
        model.add_hook("blocks.2.attn.hook_z", lambda z, hook: z * 2)

    with model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]):
        model(**inputs)  # which runs the self-check
    layer = model.hf_model.get_decoder().layers[0]
    handle = layer.register_forward_hook(turn_on)
    with pytest.raises(
        RuntimeError, match=r"blocks\.2\.attn\.hook_z were turned on during a forward"
    ):
        model(**inputs)
    handle.remove()
    model.reset_hooks()
    assert torch.isfinite(model(**inputs)).all()


@torch.no_grad()
def test_threads_leave_nothing_behind(model, inputs):
    """Many short threads: what each knew of its forwards goes with it."""
    states = []

    def forward():
        model.hf_model(**inputs)
        states.append(model._run.here.coming)

    for _ in range(3):
        thread = threading.Thread(target=torch.no_grad()(forward))
        thread.start()
        thread.join()
    gc.collect()
    assert len({id(state) for state in states}) == 3
    assert model._run.depth == 0


@torch.no_grad()
def test_an_interrupt_in_a_bare_forward_blocks_no_other_thread(model, inputs):
    """torch calls no hook behind a forward that Ctrl-C ended, and the thread lives on."""

    def interrupt(z, hook):
        raise KeyboardInterrupt

    with model.hooks([("blocks.0.attn.hook_z", interrupt)]), suppress(KeyboardInterrupt):
        model.hf_model(**inputs)
    with (
        model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 2)]),
        ThreadPoolExecutor(1) as pool,
    ):
        other = pool.submit(torch.no_grad()(lambda: model(**inputs))).result()
        assert torch.equal(other, model(**inputs))
