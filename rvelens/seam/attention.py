"""The hook points inside the attention of one layer.

A layer with hooks on its scores or pattern computes the hooked rows in float32 at least:
scores -> mask -> hook_attn_scores -> mask -> softmax -> hook_pattern -> values -> hook_z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.compiler import is_compiling

from rvelens.hooks.rows import MASK_ENFORCED, MASKED, N_ROWS
from rvelens.seam.call import Call, code_of
from rvelens.seam.firing import fire_and_compare
from rvelens.seam.forward import Forward, Run
from rvelens.seam.hook_point import Point, has_hooks


class AttentionHooks(nn.Module):
    """The hook points of one layer, `blocks.{layer}.attn`.

    - `hook_rot_q` [batch query head d_head] and `hook_rot_k` [batch key kv_head d_head]: what the
      attention function gets.
    - `hook_attn_scores` [batch head query key]: scaled q.k, after the mask (masked keys hold the
      lowest finite number), before softmax. The mask is applied again after the hooks, unless
      `HookedLVLM.enforce_mask` is False.
    - `hook_pattern` [batch head query key]: after softmax.
    - `hook_z` [batch query head d_head]: each head's output for every row, before the output
      projection.

    Under `query_rows="last"` the query axis of scores and pattern has length 1.
    `rvelens.seam.points` lists the points of a layer that are read elsewhere.
    """

    def __init__(self, run: Run, layer: int) -> None:
        super().__init__()
        self.hook_rot_q = Point()
        self.hook_rot_k = Point()
        self.hook_attn_scores = Point()
        self.hook_pattern = Point()
        self.hook_z = Point()
        self.layer = layer
        self.run: Run = run
        self.on = False
        self.on_change: Callable[[Point], None] | None = None
        # What looks at each call and edits nothing, where no hook is needed.
        self.watch: Callable[[Call], None] | None = None
        first = self.hook_rot_q, self.hook_rot_k
        # A plain attribute, which is read in every forward: modules look theirs up slowly.
        self.points: tuple[Point, ...] = (
            *first, self.hook_attn_scores, self.hook_pattern, self.hook_z
        )  # fmt: skip
        for point in self.points:
            point.on_change = self._note
        self.checked: Any = None  # the code of the attention function that the self-check saw
        disable: Any = torch.compiler.disable
        self._attend_uncompiled = disable(self._attend)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Hooks belong to the model that was wrapped: its copies and pickles hold None instead."""
        return type(None), ()

    @property
    def in_use(self) -> bool:
        """Whether any hook is on in the attention function's place, or something watches its calls."""
        return self.on or self.watch is not None

    def _note(self, point: Point) -> None:
        self.on = any(point.on for point in self.points)
        self.run.note_use(self, self.on)
        if self.on_change is not None:
            self.on_change(point)

    @property
    def rows_in_use(self) -> bool:
        """Whether any hook is on the scores or the pattern."""
        return has_hooks(self.hook_attn_scores) or has_hooks(self.hook_pattern)

    def attend(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Attention of one layer with the hooks that are on.

        Raises:
            NotImplementedError: attention that the opened rows do not compute.
            RuntimeError: the layer runs outside of a forward of the model.
        """
        if is_compiling() and not self.run.in_step:
            return self._attend_uncompiled(call)
        return self._attend(call)

    def _attend(self, call: Call) -> tuple[Tensor, Tensor | None]:
        if self.watch is not None:
            self.watch(call)
            if not self.on:
                return call.original()
        forward = self.run.forward_at(self.hook_z.name)
        if not forward.hooked or self.layer in forward.skipped:
            return call.original()
        if not is_compiling():
            self._check(call, forward)
        call.refuse_paged(self.hook_z.name)
        call.query = self._fire_rotated(self.hook_rot_q, call.query, forward)
        call.key = self._fire_rotated(self.hook_rot_k, call.key, forward)
        if not self.rows_in_use:
            z, weights = call.original()
            return (self._fire_z(z, forward) if has_hooks(self.hook_z) else z), weights
        call.refuse_inexact(self.hook_attn_scores.name)
        z, weights = self._open(call, forward)
        return (self._fire_z(z, forward) if has_hooks(self.hook_z) else z), weights

    def _check(self, call: Call, forward: Forward) -> None:
        """Raise RuntimeError for a layer that runs again, or otherwise than the self-check saw it."""
        if self.layer in forward.fired:
            raise RuntimeError(
                f"{self.hook_z.name} runs twice in a forward: expected one call of one attention "
                "module for each layer; give one image at a time if it is a vision tower's, or wrap "
                "the model again after its layers were changed."
            )
        forward.fired.add(self.layer)
        if self.checked is not None and code_of(call.function) is not self.checked:
            self.run.is_changed = True
            raise RuntimeError(
                f"{self.hook_z.name} would run with another attention function than the self-check "
                f"saw under {call.name!r}: expected the same; turn the hooks on again to check it."
            )

    def _open(self, call: Call, forward: Forward) -> tuple[Tensor, Tensor | None]:
        run, point = self.run, self.hook_attn_scores
        n_rows = call.query.shape[2]
        row = run.row_of(forward, n_rows, point.name)
        every = run.query_rows == "all" or n_rows == 1
        with call.full_precision():
            scores, hidden = call.scores(every, row)
            edited, scores_edited = scores, False
            if has_hooks(point):
                # A hook before another one may hide keys as well, and no mask hides those again.
                point.ctx[MASKED] = hidden is not None or point.several
                point.ctx[MASK_ENFORCED] = run.enforce_mask and not point.several
                point.ctx[N_ROWS] = n_rows
                edited, scores_edited = self._fire_and_compare(point, scores, forward)
            if scores_edited and hidden is not None:
                edited = _masked_again(edited, hidden, run.enforce_mask)
            pattern, pattern_edited = self._fire_and_compare(
                self.hook_pattern, edited.softmax(dim=-1), forward
            )
        if not (scores_edited or pattern_edited or pattern.requires_grad):
            return call.original()  # the hooks only looked: the model's own rows stay
        run.keep(self.hook_attn_scores, pattern)
        with call.full_precision():
            z = call.mixed(pattern)
        if every:
            return z, call.as_weights(pattern)
        whole, weights = call.original()
        if weights is not None:
            shown = pattern.to(weights.dtype).transpose(1, 2)
            weights = _put_row(weights.transpose(1, 2), shown, row).transpose(1, 2)
        return _put_row(whole, z.to(whole.dtype), row), weights

    def _fire_and_compare(self, point: Point, x: Tensor, forward: Forward) -> tuple[Tensor, bool]:
        """Run the hooks of a point; see `fire_and_compare`."""
        return fire_and_compare(self.run, point, x, forward)

    def _fire_rotated(
        self, point: Point, x: Float[Tensor, "batch head query d_head"], forward: Forward
    ) -> Float[Tensor, "batch head query d_head"]:
        if not has_hooks(point):
            return x
        # A copy: the cache holds keys for the steps to come, and a projection may show the same tensor.
        shown = x.transpose(1, 2).clone()
        y, edited = self._fire_and_compare(point, shown, forward)
        if edited:
            self.run.keep(point, y)
        return y.transpose(1, 2) if edited or y.requires_grad else x

    def _fire_z(
        self, z: Float[Tensor, "batch query head d_value"], forward: Forward
    ) -> Float[Tensor, "batch query head d_value"]:
        y, edited = self._fire_and_compare(self.hook_z, z, forward)
        if edited:
            self.run.keep(self.hook_z, y)
        return y


def _put_row(
    z: Float[Tensor, "batch query head last"],
    opened: Float[Tensor, "batch 1 head last"],
    row: Int[Tensor, " batch"] | None,
) -> Float[Tensor, "batch query head last"]:
    """Write the opened row back; a copy where autograd still needs the model's own output."""
    if z.requires_grad or opened.requires_grad:
        z = z.clone()
    if row is None:
        z[:, -1:] = opened
    else:
        z[torch.arange(z.shape[0], device=z.device), row.to(z.device)] = opened[:, 0]
    return z


def _masked_again(
    edited: Float[Tensor, "batch head query key"],
    hidden: Bool[Tensor, "#batch #head query key"],
    everywhere: bool,
) -> Float[Tensor, "batch head query key"]:
    """Hide again what the mask hides: `everywhere`, or in rows of padding alone, which see no key.

    Hidden keys get minus infinity, so that they stay below whatever a hook makes of the others. Rows of
    padding get the lowest finite number, so that they do not end as NaN.
    """
    lowest = torch.finfo(edited.dtype).min
    padding = hidden.all(dim=-1, keepdim=True)
    if not everywhere:
        return edited.masked_fill(padding, lowest)
    floor = torch.full_like(padding, -torch.inf, dtype=edited.dtype).masked_fill(padding, lowest)
    return torch.where(hidden, floor, edited)
