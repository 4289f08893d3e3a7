"""Locates all hook points of a decoder or a vision tower, and checks them by edits.

A decoder reads one short text. It then reads a batch of copies of the text: one copy for each layer,
and one copy without edits. In each of the others, the points of one layer are edited. The layer's sums
must hold for the edited tensors, and an edit of one head must leave the other heads alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.seam.blocks import (
    Block,
    Part,
    SourceOrReason,
    close,
    is_sum,
    norm_of,
    projections,
    widen,
)
from rvelens.seam.device import execution_device
from rvelens.seam.forward import Forward, Run
from rvelens.seam.linear import weight_of, why_not_plain
from rvelens.seam.self_check import N_TOKENS
from rvelens.seam.taps import Input, Result
from rvelens.seam.watching import BlockRecord, ModuleCall, Stack, watch

# Edits by this factor move sums by more than rounding, and stay within float16.
_NUDGE = -0.5


@torch.no_grad()
def locate_in_decoder(stack: Stack, run: Run) -> dict[str, SourceOrReason]:
    """Sources of a decoder's points, or the reason for having none, by key such as "3.hook_resid_mid".

    Raises:
        ValueError: the short forward fails.
    """
    decoder: Any = stack.whole
    n_vocab = int(decoder.get_input_embeddings().weight.shape[0])
    ids = torch.linspace(1, n_vocab - 2, N_TOKENS).long()[None].to(execution_device(decoder))

    def forward(copies: int) -> None:
        decoder.forward(input_ids=ids.repeat(copies, 1), use_cache=False)

    run.here.forwards.append(Forward(N_TOKENS, hooked=False))
    try:
        embedding = decoder.get_input_embeddings()
        records, outer = watch(stack, lambda: forward(1), embedding)
        sources, _ = _locate(stack, run, records, outer)
        sources["hook_embed"] = _embedding(embedding, records[0], outer)
        wrong = _check_edits(stack, sources, lambda: forward(len(stack.blocks) + 1))
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise ValueError(
            f"the short forward that locates hook points failed ({error}): expected a "
            "decoder that reads input_ids; hook scores, pattern or z, under self_check=False."
        ) from error
    finally:
        run.here.forwards.pop()
    return sources | wrong


@torch.no_grad()
def locate_in_tower(
    stack: Stack, run: Run, forward: Callable[[], Any]
) -> dict[str, SourceOrReason]:
    """The same for a vision tower, by one forward on its own inputs.

    Queries and keys with normed heads are refused: without edits, nothing tells the heads apart.

    Raises:
        ValueError: hidden states of zeros alone, or NaN, which tell no module from another.
    """
    records, outer = watch(stack, forward)
    states = [x for r in records for x in (r.whole and r.whole.x, r.query, r.key, r.value, r.z)]
    if any(x is not None and not 0 < float(x.abs().max()) < torch.inf for x in states):
        raise ValueError(
            f"hidden states of {type(stack.whole).__name__} are zero or not finite for these images, "
            "which tells no module from another: expected images with some contrast; give such "
            "images in the first forward with hooks on the vision tower."
        )
    sources, unsure = _locate(stack, run, records, outer)
    reason = "its heads are normed, so that a forward alone does not tell which are which"
    for n, record in enumerate(records):
        if record.n_calls > 1:
            several = (
                f"it calls its attention function {record.n_calls} times, for pieces of the image"
            )
            sources |= {f"{n}.attn.{name}": several for name in _IN_FUNCTION}
    return sources | dict.fromkeys(unsure, reason)


_IN_FUNCTION = ("hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern", "hook_z")


def _locate(
    stack: Stack, run: Run, records: list[BlockRecord], outer: list[ModuleCall]
) -> tuple[dict[str, SourceOrReason], list[str]]:
    """Sources by key, and the keys of those that one forward does not prove."""
    sources: dict[str, SourceOrReason] = {}
    unsure: list[str] = []
    for n, record in enumerate(records):
        attention = stack.attentions.get(n)
        if record.whole is None or record.whole.x is None or record.whole.y is None:
            continue
        of_block = Block(record, attention, run).sources()
        sources |= {f"{n}.{name}": source for name, source in of_block.items()}
        if attention is None:
            continue
        for part, place in projections(record, attention).items():
            key = f"{n}.attn.hook_{part}"
            sources[key] = place.source if isinstance(place, Part) else place
            if isinstance(place, Part) and not place.sure:
                unsure.append(key)
        sources[f"{n}.attn.hook_result"] = _result(record)
    last = records[-1].whole
    finals = [call for call in outer if last is not None and _same(call.x, last.y)]
    sources["ln_final.hook_scale"] = (
        norm_of(finals[0]) if finals else "no norm follows the last block"
    )
    return sources, unsure


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    both = a is not None and b is not None and a.is_floating_point()
    return both and close(a, b)  # type: ignore[arg-type]


def _result(record: BlockRecord) -> SourceOrReason:
    """The output projection: the module that gets z unchanged."""
    if record.z is None:
        return "its attention function was not called"
    z = record.z.flatten(-2)
    for call in record.inner:
        x = call.x
        if x is not None and x.shape[-1] == z.shape[-1] and _same(x.view(-1), z.view(-1)):
            reason = why_not_plain(call.module)
            return reason or Result(call.module, record.z.shape[2], weight_of)
    return "the output projection does not get hook_z as it is"


def _embedding(embedding: nn.Module, first: BlockRecord, outer: list[ModuleCall]) -> SourceOrReason:
    """The first block's input, if it is the embeddings up to a fixed factor."""
    call = next((c for c in outer if c.module is embedding), None)
    x = None if first.whole is None else first.whole.x
    if call is None or call.y is None or x is None or call.y.shape != x.shape:
        return "its embeddings do not enter the first block as they are"
    y = widen(call.y)
    factor = (widen(x) * y).sum() / y.pow(2).sum()
    if not close(y * factor, x):
        return "positions or a norm come between its embeddings and the first block"
    return Input(first.whole.module, first=True)  # type: ignore[union-attr]


# -- edits -----------------------------------------------------------------------------------------


def _check_edits(
    stack: Stack, sources: Mapping[str, SourceOrReason], forward: Callable[[], None]
) -> dict[str, SourceOrReason]:
    """Points whose edits do not have their effect, with the reason."""
    tensors: dict[str, Tensor] = {}
    handles = []
    try:
        for key, source in sources.items():
            layer, _, name = key.partition(".")
            if layer.isdigit() and name in _EDITED and not isinstance(source, str):
                handles.append(source.hook(_nudge(key, int(layer), tensors)))
        records, _ = watch(stack, forward)
    finally:
        for handle in handles:
            handle.remove()
    wrong: dict[str, SourceOrReason] = {}
    for n, record in enumerate(records):
        for name, reason in _wrong(n, record, sources, tensors).items():
            wrong[f"{n}.{name}"] = reason
    return wrong


_EDITED = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", *(f"attn.hook_{p}" for p in "qkv"))


def _nudge(key: str, layer: int, tensors: dict[str, Tensor]) -> Callable[[Tensor], Any]:
    """An edit of a layer's own copy: scales half of the stream, or changes the first head's sign."""

    def fire(x: Tensor) -> tuple[Tensor, bool]:
        tensors[key] = x.detach()[layer].clone()
        x = x.clone()
        if ".attn." in key:
            x[layer, :, 0] *= -1
        else:
            x[layer, :, : x.shape[-1] // 2] *= _NUDGE
        tensors[key + " after"] = x.detach()[layer].clone()
        return x, True

    return fire


def _wrong(
    n: int,
    record: BlockRecord,
    sources: Mapping[str, SourceOrReason],
    nudged: Mapping[str, Tensor],
) -> dict[str, str]:
    """The points of a layer whose edits do not have their effect, with the reason."""
    if record.whole is None or record.whole.x is None or record.whole.y is None:
        return {}
    x, y = record.whole.x[n], record.whole.y[n]
    attn, mlp = (nudged.get(f"{n}.hook_{name} after") for name in ("attn_out", "mlp_out"))
    mid, mid_after = (nudged.get(f"{n}.hook_resid_mid{after}") for after in ("", " after"))
    wrong = {}
    lost = "an edit of it does not reach the residual stream"
    if attn is not None and mid is not None and not is_sum(mid, x, attn):
        wrong["hook_attn_out"] = lost
    if mlp is not None and mid_after is not None and not is_sum(y, mid_after, mlp):
        wrong |= {"hook_mlp_out": lost, "hook_resid_mid": lost}
    if mid is None and attn is not None:
        branches = (attn,) if mlp is None else (attn, mlp)
        if not is_sum(y, x, *branches):
            wrong |= {"hook_attn_out": lost, "hook_mlp_out": lost}
    for part, states in (("q", record.query), ("k", record.key), ("v", record.value)):
        if f"{n}.attn.hook_{part}" in nudged and states is not None and not _local(states, n):
            wrong[f"attn.hook_{part}"] = "an edit of one of its heads is not one of that head alone"
    return {name: reason for name, reason in wrong.items() if f"{n}.{name}" in sources}


def _local(states: Float[Tensor, "batch head query d_head"], n: int) -> bool:
    """Whether the copy differs from the last one, which nobody edited, in the first head alone."""
    mine, plain = (widen(states[i]).flatten(1) for i in (n, -1))
    moved = (mine - plain).norm(dim=1) / torch.maximum(mine.norm(dim=1), plain.norm(dim=1))
    others = moved[1:].max() if len(moved) > 1 else moved.new_zeros(())
    # A change of sign moves a head by twice its length. Rounding of 16 bits in many layers stays below.
    return bool(moved[0] > 0.5 and others < 0.1)
