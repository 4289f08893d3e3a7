"""Scores of 16-bit weights are float32, and on CUDA no wide copy of the keys is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rvelens.seam.call import Call

SHAPES = [(2, 8, 1, 16), (2, 4, 30, 16), (2, 4, 30, 16)]


class Kernels(TorchDispatchMode):
    """The names of the operations that ran, and the shapes of what was converted."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.converted: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        if func is torch.ops.aten._to_copy.default:
            self.converted.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def call_of(tensors: list[torch.Tensor]) -> Call:
    query, key, value = tensors
    return Call(lambda: None, "sdpa", torch.nn.Module(), query, key, value, None, (), {})


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_cuda_one_kernel_multiplies_narrow_numbers(dtype):
    """On tensors without numbers, which tell device, dtype and shape: there need not be a GPU."""
    with FakeTensorMode():
        call = call_of([torch.empty(*shape, device="cuda", dtype=dtype) for shape in SHAPES])
        with Kernels() as kernels:
            scores, hidden = call.scores(True, None)
    assert (scores.dtype, tuple(scores.shape), hidden) == (torch.float32, (2, 8, 1, 30), None)
    assert kernels.names.count("aten.bmm.dtype") == 1
    assert kernels.converted == []


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_that_kernel_computes_is_what_wide_copies_give(dtype, monkeypatch):
    """The kernel's documented meaning, put in its place on the CPU, against the other way."""
    generator = torch.Generator().manual_seed(0)
    call = call_of([torch.randn(*shape, generator=generator).to(dtype) for shape in SHAPES])
    expected, _ = call.scores(True, None)
    bmm = torch.bmm

    def documented(x: Any, y: Any, out_dtype: Any) -> Any:
        return bmm(x.double(), y.double()).to(out_dtype)

    monkeypatch.setattr(torch, "bmm", documented)
    monkeypatch.setattr(Call, "_multiplies_narrow", True)
    got, _ = call.scores(True, None)
    assert got.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)


def test_with_gradients_the_differentiable_way_is_taken():
    query, key, value = (torch.empty(*shape, dtype=torch.bfloat16) for shape in SHAPES)
    scores, _ = call_of([query.requires_grad_(), key, value]).scores(True, None)
    assert scores.dtype == torch.float32
    assert scores.requires_grad
