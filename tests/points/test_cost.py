"""Layers without hooks run the operations of the plain model, and no others."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, batch, hooked
from tiny_models import build
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    """The operations that run, with the bytes of their results."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        size = result.nbytes if isinstance(result, torch.Tensor) else 0
        self.operations.append((str(func), size))
        return result


def record(hf_model):
    """Recorders of the decoder's layers, which record from now on."""
    recorders = []
    for layer in hf_model.get_decoder().layers:
        recorder = Recorder()
        recorders.append(recorder)

        def forward(*args, forward=layer.forward, recorder=recorder, **kwargs):
            with recorder:
                return forward(*args, **kwargs)

        layer.forward = forward
    return recorders


def operations_of(recorders):
    lists = [recorder.operations for recorder in recorders]
    for recorder in recorders:
        recorder.operations = []
    return lists


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_an_unhooked_layer_runs_the_operations_of_the_plain_model(name):
    model = hooked(name)
    inputs = batch(model)
    points = [n for n in model.hook_dict if n.startswith("blocks.1.")]
    model.run_with_cache(**inputs, names_filter=points)  # the self-check and the search run once
    plain, _ = build(name)
    expected, ours = record(plain), record(model.hf_model)
    plain(**inputs)
    unhooked = operations_of(expected)
    assert all(len(operations) > 10 for operations in unhooked)
    model(**inputs)
    assert operations_of(ours) == unhooked
    model.run_with_cache(**inputs, names_filter=points)
    hooked_operations = operations_of(ours)
    assert len(hooked_operations[1]) > len(unhooked[1])
    assert [hooked_operations[0], hooked_operations[2]] == [unhooked[0], unhooked[2]]
