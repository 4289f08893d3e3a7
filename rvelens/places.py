"""Where all hook points of a decoder or a vision tower are, checked by what edits of them do.

A decoder reads one short text, and then again in as many copies as it has layers, and one more. In each
copy the points of one layer are edited. The sums that the layer makes must be those of the edited
tensors, and edits of one head must leave the other heads alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.blocks import Block, Found, Part, close, is_sum, norm_of, projections, widen
from rvelens.device import execution_device
from rvelens.linear import weight_of, why_not_plain
from rvelens.run import Forward, Run
from rvelens.self_check import N_TOKENS
from rvelens.taps import Input, Result
from rvelens.watching import Seen, Stack, Step, watch

# Edits by this factor move sums by more than rounding, and stay within float16.
_NUDGE = -0.5


@torch.no_grad()
def places_of_decoder(stack: Stack, run: Run) -> dict[str, Found]:
    """Sources of a decoder's points, or why they have none, by key such as "3.hook_resid_mid".

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
        seen, beside = watch(stack, lambda: forward(1), embedding)
        found, _ = _places(stack, run, seen, beside)
        found["hook_embed"] = _embedding(embedding, seen[0], beside)
        wrong = _nudged(stack, found, lambda: forward(len(stack.blocks) + 1))
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise ValueError(
            f"hook points were looked for by a short forward, which failed ({error}): expected a "
            "decoder that reads input_ids; hook scores, pattern or z, under self_check=False."
        ) from error
    finally:
        run.here.forwards.pop()
    return found | wrong


@torch.no_grad()
def places_of_tower(stack: Stack, run: Run, forward: Callable[[], Any]) -> dict[str, Found]:
    """The same for a vision tower, by one forward on its own inputs.

    Queries and keys whose heads are normed are refused here: nothing tells whose head is whose.
    """
    seen, beside = watch(stack, forward)
    found, unsure = _places(stack, run, seen, beside)
    reason = "its heads are normed, so that a forward alone does not tell which are which"
    for n, block in enumerate(seen):
        if block.n_calls > 1:
            several = (
                f"it calls its attention function {block.n_calls} times, for pieces of the image"
            )
            found |= {f"{n}.attn.{name}": several for name in _IN_FUNCTION}
    return found | dict.fromkeys(unsure, reason)


_IN_FUNCTION = ("hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern", "hook_z")


def _places(
    stack: Stack, run: Run, seen: list[Seen], beside: list[Step]
) -> tuple[dict[str, Found], list[str]]:
    """Sources by key, and the keys of those that one forward does not prove."""
    found: dict[str, Found] = {}
    unsure: list[str] = []
    for n, block in enumerate(seen):
        attention = stack.attentions.get(n)
        if block.whole is None or block.whole.x is None or block.whole.y is None:
            continue
        sources = Block(block, attention, run).sources()
        found |= {f"{n}.{name}": source for name, source in sources.items()}
        if attention is None:
            continue
        for part, place in projections(block, attention).items():
            key = f"{n}.attn.hook_{part}"
            found[key] = place.source if isinstance(place, Part) else place
            if isinstance(place, Part) and not place.sure:
                unsure.append(key)
        found[f"{n}.attn.hook_result"] = _result(block)
    last = seen[-1].whole
    finals = [s for s in beside if last is not None and _same(s.x, last.y)]
    found["ln_final.hook_scale"] = (
        norm_of(finals[0]) if finals else "no norm follows the last block"
    )
    return found, unsure


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    both = a is not None and b is not None and a.is_floating_point()
    return both and close(a, b)  # type: ignore[arg-type]


def _result(seen: Seen) -> Found:
    """The output projection: the module that gets z as it is."""
    if seen.z is None:
        return "its attention function was not called"
    z = seen.z.flatten(-2)
    for step in seen.inner:
        x = step.x
        if x is not None and x.shape[-1] == z.shape[-1] and _same(x.view(-1), z.view(-1)):
            reason = why_not_plain(step.module)
            return reason or Result(step.module, seen.z.shape[2], weight_of)
    return "the output projection does not get hook_z as it is"


def _embedding(embedding: nn.Module, first: Seen, beside: list[Step]) -> Found:
    """The first block's input, if it is the embeddings up to a fixed factor."""
    step = next((s for s in beside if s.module is embedding), None)
    x = None if first.whole is None else first.whole.x
    if step is None or step.y is None or x is None or step.y.shape != x.shape:
        return "its embeddings do not enter the first block as they are"
    y = widen(step.y)
    factor = (widen(x) * y).sum() / y.pow(2).sum()
    if not close(y * factor, x):
        return "positions or a norm come between its embeddings and the first block"
    return Input(first.whole.module, first=True)  # type: ignore[union-attr]


# -- edits -----------------------------------------------------------------------------------------


def _nudged(
    stack: Stack, found: Mapping[str, Found], forward: Callable[[], None]
) -> dict[str, Found]:
    """Points that do not do what an edit of them should, with the reason."""
    before: dict[str, Tensor] = {}
    handles = []
    try:
        for key, source in found.items():
            layer, _, name = key.partition(".")
            if layer.isdigit() and name in _EDITED and not isinstance(source, str):
                handles.append(source.hook(_nudge(key, int(layer), before)))
        seen, _ = watch(stack, forward)
    finally:
        for handle in handles:
            handle.remove()
    wrong: dict[str, Found] = {}
    for n, block in enumerate(seen):
        for name, reason in _wrong(n, block, found, before).items():
            wrong[f"{n}.{name}"] = reason
    return wrong


_EDITED = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", *(f"attn.hook_{p}" for p in "qkv"))


def _nudge(key: str, layer: int, before: dict[str, Tensor]) -> Callable[[Tensor], Any]:
    """Edits the copy of a layer: half of the stream, or the first head by its sign."""

    def fire(x: Tensor) -> tuple[Tensor, bool]:
        before[key] = x.detach()[layer].clone()
        x = x.clone()
        if ".attn." in key:
            x[layer, :, 0] *= -1
        else:
            x[layer, :, : x.shape[-1] // 2] *= _NUDGE
        before[key + " after"] = x.detach()[layer].clone()
        return x, True

    return fire


def _wrong(
    n: int, seen: Seen, found: Mapping[str, Found], nudged: Mapping[str, Tensor]
) -> dict[str, str]:
    """The points of a layer whose edits are not where they belong."""
    if seen.whole is None or seen.whole.x is None or seen.whole.y is None:
        return {}
    x, y = seen.whole.x[n], seen.whole.y[n]
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
    for part, given in (("q", seen.query), ("k", seen.key), ("v", seen.value)):
        if f"{n}.attn.hook_{part}" in nudged and given is not None and not _local(given, n):
            wrong[f"attn.hook_{part}"] = "an edit of one of its heads is not one of that head alone"
    return {name: reason for name, reason in wrong.items() if f"{n}.{name}" in found}


def _local(given: Float[Tensor, "batch head query d_head"], n: int) -> bool:
    """Whether the copy differs from the last one, which nobody edited, in the first head alone."""
    mine, plain = (widen(given[i]).flatten(1) for i in (n, -1))
    moved = (mine - plain).norm(dim=1) / torch.maximum(mine.norm(dim=1), plain.norm(dim=1))
    others = moved[1:].max() if len(moved) > 1 else moved.new_zeros(())
    # A change of sign moves a head by twice its length. Rounding of 16 bits in many layers stays below.
    return bool(moved[0] > 0.5 and others < 0.1)
