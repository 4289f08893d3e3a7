"""Checks of attention: each layer's rows against eager attention and the literal reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.check.literal import (
    LiteralRVE,
    eager_function,
    eager_in_float32,
    scores_of_row,
    z_of_row,
)
from rvelens.check.outcome import Outcome, apart, failed, not_applicable, passed, within
from rvelens.check.subject import Subject, listed
from rvelens.hooks import head_mask_hooks
from rvelens.seam.call import Call

# Added to scores of image keys; far from 0, and small enough for every dtype.
_RAISED = 4.0
_HIDDEN = -1e30


def check_layers(subject: Subject) -> Outcome:
    """Each layer calls its attention function, in order, and its output reaches the logits."""
    seam, decoder = subject.model._seam, subject.model.hf_model.get_decoder()
    seam.problems = None  # of an earlier check
    problems = seam.check_layers(decoder)
    if problems:
        reasons: dict[str, list[int]] = {}
        for layer, problem in problems.items():
            reasons.setdefault(problem.reason, []).append(layer)
        return failed("; ".join(f"layers {listed(n)}: {reason}" for reason, n in reasons.items()))
    return passed(f"{len(subject.model.attention_layers)} layers call it once, in their order")


@dataclass
class Largest:
    """The largest differences over the layers, as shares of their limits, and the worst layer."""

    share: float = 0.0
    measured: float = 0.0
    limit: float = 0.0
    layer: int = -1
    count: int = 0
    skipped: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, measured: float, limit: float, layer: int) -> None:
        """Take a difference into account; NaN is the largest."""
        self.count += 1
        share = measured / limit if limit else float(measured > 0)
        if not share <= self.share or self.layer < 0:
            self.share, self.measured, self.limit, self.layer = share, measured, limit, layer

    def outcome(self, reason: str) -> Outcome:
        """The outcome for the worst layer."""
        if self.wrong:
            return failed("; ".join(dict.fromkeys(self.wrong)))
        return within(self.measured, self.limit, f"{reason}; the most in layer {self.layer}")


def check_pattern(subject: Subject) -> Outcome:
    """Every row of the pattern equals the weights of eager attention, from equal queries and keys."""
    return _against_eager(subject, "pattern")


def check_z(subject: Subject) -> Outcome:
    """Every row of z equals eager attention, from equal queries, keys and values."""
    return _against_eager(subject, "z")


@torch.no_grad()
def _against_eager(subject: Subject, quantity: str) -> Outcome:
    """All rows of all layers against eager attention in float32."""
    if not subject.layers:
        return not_applicable("no layer's pattern can be hooked")
    shown: dict[str, Tensor] = {}
    worst, absent = Largest(), set()

    def record(x: Tensor, hook: Any) -> None:
        shown[hook.name.rpartition(".")[2]] = x.detach().clone()

    def compare(hooks: Any, call: Call) -> tuple[Tensor, Any]:
        result = hooks.attend(call)
        eager = eager_function(call)
        if eager is None:
            absent.add(type(call.module).__name__)
        else:
            expected = eager_in_float32(call, eager)
            _COMPARE[quantity](subject, hooks.layer, shown, expected, worst)
        return result

    names = ("attn_scores", "pattern", "z")
    points = [(f"blocks.{n}.attn.hook_{name}", record) for n in subject.layers for name in names]
    rows = subject.model.query_rows
    try:
        subject.model.query_rows = "all"
        with subject.model.hooks(points), subject.looking(compare):
            subject.logits(subject.inputs)
    finally:
        subject.model.query_rows = rows
    if absent:
        return not_applicable(f"{', '.join(sorted(absent))} has no eager attention function")
    if not worst.count and not worst.wrong:
        return not_applicable("eager attention returns no weights")
    return worst.outcome(f"all rows of {len(subject.layers)} layers against eager in float32")


def _compare_pattern(
    subject: Subject,
    layer: int,
    shown: Mapping[str, Tensor],
    expected: tuple[Tensor, Tensor | None],
    worst: Largest,
) -> None:
    pattern, weights = shown["hook_pattern"], expected[1]
    if weights is None:
        return
    if pattern.shape != weights.shape:
        worst.wrong.append(f"layer {layer}: pattern has another shape than eager weights")
        return
    limit = subject.tolerance.weights(_largest_score(shown))
    worst.note(float((pattern - weights).abs().max()), limit, layer)


def _compare_z(
    subject: Subject,
    layer: int,
    shown: Mapping[str, Tensor],
    expected: tuple[Tensor, Tensor | None],
    worst: Largest,
) -> None:
    z = expected[0]
    limit = subject.tolerance.row(_largest_score(shown), float(z.abs().max()))
    worst.note(float((shown["hook_z"].float() - z).abs().max()), limit, layer)


_COMPARE = {"pattern": _compare_pattern, "z": _compare_z}


def _largest_score(shown: Mapping[str, Tensor]) -> float:
    """The largest size of a score that is not masked."""
    scores = shown["hook_attn_scores"]
    return float(scores[scores > _HIDDEN].abs().max())


@torch.no_grad()
def check_rve(subject: Subject) -> Outcome:
    """Each layer's edited row equals equations 4 to 6, in the prompt and in generated steps."""
    if not subject.layers or not subject.k:
        return not_applicable("RVE needs a layer with two heads that can be hooked")
    inputs = subject.batch
    image = subject.image_keys(inputs)
    worst, state = Largest(), {"keys": inputs["input_ids"].shape[1], "first": subject.layers[0]}

    def compare(hooks: Any, call: Call) -> tuple[Tensor, Any]:
        if hooks.layer == state["first"] and call.query.shape[2] == 1:
            state["keys"] += 1
        plain, _ = call.original()
        plain = plain.clone()
        result = hooks.attend(call)
        _compare_rve(subject, hooks.layer, call, plain, result[0], image, state["keys"], worst)
        return result

    with subject.model.hooks(subject.rve()), subject.looking(compare):
        subject.generate(inputs, 3)
    if not worst.count and not worst.wrong:
        return not_applicable(f"all {worst.skipped} rows have ties, which rounding may decide")
    return worst.outcome(f"{worst.count} rows of {len(image)} prompts, {worst.skipped} with ties")


def _compare_rve(
    subject: Subject,
    layer: int,
    call: Call,
    plain: Float[Tensor, "batch query head d_value"],
    z: Float[Tensor, "batch query head d_value"],
    image: Any,
    n_keys: int,
    worst: Largest,
) -> None:
    """The last row of each sample against the literal one, the others against the plain ones."""
    if not torch.equal(plain[:, :-1], z[:, :-1]):
        worst.wrong.append(f"layer {layer}: RVE changed other rows than the last one")
    profile, alpha = subject.profile, subject.model.family.alpha
    literal = LiteralRVE(profile.ranking[layer].tolist(), subject.k, alpha, 1.0)
    gone = n_keys - call.key.shape[2]  # keys that a sliding window dropped
    for sample in range(len(z)):
        positions = torch.nonzero(image[sample]).flatten().tolist()
        keys = [i - gone for i in positions if i >= gone]
        scores = scores_of_row(call, sample, call.query.shape[2] - 1)
        edited, tie = literal.edit(scores, keys, len(positions)) if keys else (scores, False)
        if tie:
            worst.skipped += 1
            continue
        expected = z_of_row(call, sample, edited)
        largest = float(scores[scores > _HIDDEN].abs().max())
        limit = subject.tolerance.row(largest, float(call.value[sample].float().abs().max()))
        difference = (z[sample, -1].double().cpu() - expected).abs().max()
        worst.note(float(difference), limit, layer)


@torch.no_grad()
def check_head_masks(subject: Subject) -> Outcome:
    """A masked head is zero in the rows that were named, and all else is as it was."""
    layers = [n for n in subject.layers if subject.profile.n_heads]
    if not layers:
        return not_applicable("no layer can be hooked")
    wrong: list[str] = []
    for rows in ("all", "last"):
        hooks = head_mask_hooks({layer: [0] for layer in layers}, rows)

        def compare(hooks: Any, call: Call, rows: str = rows) -> tuple[Tensor, Any]:
            expected = call.original()[0].clone()
            expected[:, slice(None) if rows == "all" else slice(-1, None), 0] = 0
            result = hooks.attend(call)
            if not torch.equal(result[0], expected):
                wrong.append(f"layer {hooks.layer}: masking head 0 in {rows} rows is not exact")
            return result

        with subject.model.hooks(hooks), subject.looking(compare):
            subject.logits(subject.batch)
    if wrong:
        return failed("; ".join(wrong[:3]))
    return passed(f"head 0 of {len(layers)} layers, in all rows and in the last one: bit-identical")


@torch.no_grad()
def check_edits(subject: Subject) -> Outcome:
    """An edit of image keys in a layer's last row changes its logits, and no row before it."""
    if not subject.layers:
        return not_applicable("no layer's scores can be hooked")
    before = subject.logits(subject.inputs)
    image = subject.image_keys(subject.inputs)
    hit_layers: set[int] = set()
    moved, dead = 0.0, []
    for layer in subject.layers:
        hook = _raising(image, hit_layers)
        with subject.model.hooks([(f"blocks.{layer}.attn.hook_attn_scores", hook)]):
            after = subject.logits(subject.inputs)
        if layer in hit_layers and torch.equal(after[:, -1], before[:, -1]):
            dead.append(layer)
        moved = max(moved, apart(after[:, :-1], before[:, :-1]))
    if dead:
        return failed(f"raised image keys of layers {listed(dead)} do not change the logits")
    if not hit_layers:
        return not_applicable("the windows of all layers end behind the image")
    text = f"{len(hit_layers)} of {len(subject.layers)} layers see the image and change the logits"
    if not subject.is_causal:
        return passed(f"{text}; rows before the last one read it in this model")
    return within(moved, subject.tolerance.whole, f"{text}; measured: how far other rows move")


def _raising(image: Any, layers: set[int]) -> Any:
    """A hook that raises the last row's scores of image keys that it can see."""

    def raise_image(scores: Tensor, hook: Any) -> Tensor:
        visible = image[:, None, None].to(scores.device) & (scores > _HIDDEN)
        if bool(visible.any()):
            layers.add(hook.layer())
        return scores + _RAISED * visible

    return raise_image
