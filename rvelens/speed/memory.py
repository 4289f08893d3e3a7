"""How much memory a capture takes, counted and not estimated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rvelens.hooks import ars_caching_hooks
from rvelens.model.hooked_lvlm import HookedLVLM


def check_room(gib: float, device: str) -> None:
    """Raise ValueError where a device is missing or has fewer than `gib` GiB free."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: expected 'cpu' or 'cuda'; pass one of them.")
    if number and not (kind == "cuda" and number.isdigit()):
        raise ValueError(
            f"device {device!r}: expected 'cpu', 'cuda', or 'cuda:0' and so on; pass one of them."
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} without a GPU that torch can use: expected a GPU; choose 'cpu'."
        )
    free = psutil.virtual_memory().available
    if kind == "cuda":
        free = torch.cuda.mem_get_info(torch.device(device))[0]
    if free / 2**30 < gib:
        raise ValueError(
            f"about {gib:.0f} GiB are needed on {device} and {free / 2**30:.0f} GiB are free: expected "
            "a device with as much memory; choose a smaller model, or another device."
        )


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made and still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._ids: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it allocated."""
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._ids:  # A weight or an input: made before, not counted.
                self._track(storage, 0)
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage._cdata not in self._ids:  # Else a view, or an operation in place.
                self._track(storage, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _track(self, storage: torch.UntypedStorage, n_bytes: int) -> None:
        self._ids.add(storage._cdata)
        self.live += n_bytes
        weakref.finalize(storage, self._free, storage._cdata, n_bytes)

    def _free(self, key: int, n_bytes: int) -> None:
        self._ids.discard(key)
        self.live -= n_bytes


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def peak_bytes(device: torch.device, run: Callable[[], Any], within: nn.Module) -> int:
    """The most bytes of new tensors that were alive at once while `run` was inside a module."""
    if device.type == "cuda":
        return _peak_on_cuda(device, run, within)
    with PeakBytes() as count:

        def begin(*_: Any) -> None:
            count.peak = count.live

        def end(*_: Any) -> None:
            peaks.append(count.peak)

        peaks: list[int] = []
        _between(begin, end, run, within)
    return peaks[-1]


def _peak_on_cuda(device: torch.device, run: Callable[[], Any], within: nn.Module) -> int:
    before = torch.cuda.memory_allocated(device)
    peaks: list[int] = []
    _between(
        lambda *_: torch.cuda.reset_peak_memory_stats(device),
        lambda *_: peaks.append(torch.cuda.max_memory_allocated(device) - before),
        run,
        within,
    )
    return peaks[-1]


def _between(
    begin: Callable[..., None], end: Callable[..., None], run: Callable[[], Any], within: nn.Module
) -> None:
    handles = [within.register_forward_pre_hook(begin), within.register_forward_hook(end)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def capture_memory(model: HookedLVLM, inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes that an ARS capture of every layer adds to the peak of one forward.

    Returns:
        "keys": length of the prompt; "forward": peak of the language model unhooked; "last" and
        "all": what the capture adds to it under either `query_rows`; "kept": what it holds after.
    """
    cache: dict[int, Tensor] = {}
    hooks = ars_caching_hooks(model.attention_layers, cache)

    def forward() -> None:
        cache.clear()
        model(**inputs, logits_to_keep=1)

    decoder = model.hf_model.get_decoder()
    forward()
    plain = peak_bytes(model.device, forward, decoder)
    added = {}
    before = model.query_rows
    try:
        with model.hooks(hooks):
            for rows in ("all", "last"):
                model.query_rows = rows
                added[rows] = peak_bytes(model.device, forward, decoder) - plain
    finally:
        model.query_rows = before
    n_bytes = sum(x.numel() * x.element_size() for x in cache.values())
    n_keys = int(inputs["input_ids"].shape[1])
    return {
        "keys": n_keys,
        "forward": plain,
        "kept": n_bytes,
        "last": added["last"],
        "all": added["all"],
    }
