"""The self-check: one short forward that tells which layers can be hooked exactly.

The decoder reads one short text as many times as it has attention layers, and once more. In each copy
half of one layer's output is scaled. A layer can be hooked if four things hold: its attention function
was called, layers ran in their order, the rows that rvelens opens equal the model's own, and the scaled
output changes what the decoder returns. The first of two forwards scales nothing. Both round alike, so
that the smallest change counts in any dtype.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.seam import look_up
from rvelens.seam.call import Call, code_of
from rvelens.seam.device import execution_device

N_TOKENS = 6
# Half of one layer's output is scaled by this: far from 1, and small enough for float16. A norm behind
# the layer would undo a scaling of all of it.
SCALE = 4.0
# A layer's change counts if it is this many times what changes a copy that is not scaled: mostly 0.
NOISE = 16.0


@dataclass(eq=False)
class _Probe:
    """Stands in for the hook points of one layer: compares the rows, and scales one sample's output.

    Attributes:
        sample: the copy of the text in which this layer's output is scaled.
        order: numbers of the samples whose layers ran, shared by all probes.
        plain: whether the opened rows equal the model's own; None before the layer ran, a reason
            where they cannot be opened.
        function: the code of the layer's attention function.
    """

    sample: int
    order: list[int]
    plain: bool | str | None = field(default=None)
    function: Any = None
    thread: int = field(default_factory=threading.get_ident)
    in_use = True

    def attend(self, call: Call) -> tuple[Float[Tensor, "batch query head d_value"], Any]:
        """The layer's own attention, with one sample's output scaled."""
        z, weights = call.original()
        if threading.get_ident() != self.thread:
            return z, weights  # another thread's own forward
        self.order.append(self.sample)
        self.function = code_of(call.function)
        try:
            call.refuse_inexact("hook_attn_scores")
        except NotImplementedError as error:
            self.plain = str(error).rstrip(".")
        else:
            self.plain = _equals_opened(call, z)
        z = z.clone()
        z[self.sample, ..., : (z.shape[-1] + 1) // 2] *= SCALE
        return z, weights


def _equals_opened(call: Call, z: Float[Tensor, "batch query head d_value"]) -> bool:
    """Whether softmax(q k^T scaling + mask) v is what the model computed, up to rounding."""
    with call.full_precision():
        scores, _ = call.scores(True, None)
        opened = call.mixed(scores.softmax(dim=-1)).float()
    if opened.shape != z.shape:
        return False
    # The rounding of one product in this dtype, for values of this size; weights are rounded as well.
    tolerance = 8 * torch.finfo(z.dtype).eps * float(call.value.float().abs().max())
    return bool((opened - z.float()).abs().max() <= tolerance)


@dataclass(frozen=True)
class Problem:
    """Why the hook points of a layer cannot be used.

    Attributes:
        reason: part of a sentence.
        rows_only: hooks on z can be used all the same.
    """

    reason: str
    rows_only: bool = False


@torch.no_grad()
def find_problems(decoder: Any, modules: Mapping[int, nn.Module]) -> dict[int, Problem]:
    """Why layers cannot be hooked exactly, by layer; layers without a problem are not in it.

    The hook points learn the attention functions that were checked, and run with no others.

    Args:
        decoder: the language model that embeds its input_ids.
        modules: its attention modules by layer.

    Raises:
        ValueError: the short forward fails.
    """
    order: list[int] = []
    probes = {layer: _Probe(sample, order) for sample, layer in enumerate(modules)}
    plain = _last_states(decoder, modules, dict.fromkeys(modules))
    if not bool(plain.isfinite().all()):
        raise ValueError(
            "the self-check's short forward returned NaN or infinity: expected finite hidden states; "
            "load the model in another dtype, or pass self_check=False to hook it unchecked."
        )
    scaled = _last_states(decoder, modules, probes)
    for layer, module in modules.items():
        look_up.hooks_of(module).checked = probes[layer].function
    change = (scaled - plain).abs().amax(dim=-1)
    # The last copy is scaled nowhere: what changes it comes from other copies, as in experts' queues.
    moved = ~(change <= NOISE * change[-1])  # a scaled layer may overflow
    problems = {
        layer: _problem(probe, bool(moved[probe.sample])) for layer, probe in probes.items()
    }
    return {layer: problem for layer, problem in problems.items() if problem is not None}


def _last_states(
    decoder: Any, modules: Mapping[int, nn.Module], probes: Mapping[int, _Probe | None]
) -> Float[Tensor, "copy d_model"]:
    """The last token's hidden state of each copy; None in a probe's place is the layer by itself.

    Raises:
        ValueError: the forward fails.
    """
    n_vocab = int(decoder.get_input_embeddings().weight.shape[0])
    ids = torch.linspace(1, n_vocab - 2, N_TOKENS).long().repeat(len(modules) + 1, 1)
    with _probing(decoder, modules, probes):
        try:
            # Not through the module's call: torch hooks on the decoder are not of this forward.
            output = decoder.forward(input_ids=ids.to(execution_device(decoder)), use_cache=False)
        except Exception as error:
            raise ValueError(
                f"the self-check's short forward failed ({error}): expected a decoder that reads "
                "input_ids; pass self_check=False to hook it unchecked."
            ) from error
    return output[0][:, -1].float()


def _problem(probe: _Probe, moved: bool) -> Problem | None:
    if probe.plain is None:
        return Problem("its attention function was not called")
    if probe.order.count(probe.sample) > 1:
        return Problem("its attention function was called more than once")
    if probe.order != sorted(probe.order):
        return Problem("the layers do not run in the order of their layer_idx")
    if not moved:
        return Problem("what its attention function returns does not change the logits")
    if isinstance(probe.plain, str):
        return Problem(probe.plain, rows_only=True)
    if not probe.plain:
        return Problem("its attention is not softmax(q k^T * scaling + mask) v", rows_only=True)
    return None


@contextmanager
def _probing(
    decoder: nn.Module, modules: Mapping[int, nn.Module], probes: Mapping[int, _Probe | None]
) -> Iterator[None]:
    """Probes in the place of hook points, without dropout; afterwards everything is as before."""
    training = [module for module in decoder.modules() if module.training]
    hooks = {layer: look_up.hooks_of(module) for layer, module in modules.items()}
    try:
        for module in training:
            module.training = False
        for layer, module in modules.items():
            look_up.attach(module, probes[layer])
        yield
    finally:
        for layer, module in modules.items():
            look_up.attach(module, hooks[layer])
        for module in training:
            module.training = True
