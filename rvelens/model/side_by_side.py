"""Many settings in one forward: the rows that they need, and one hook per hook point.

Settings differ from the layer of their first hook on. In earlier layers, settings that have generated
the same tokens would compute the same numbers, so they share one row. At the first layer that a setting
hooks, it gets its own row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rvelens.hooks.declared import is_row_local
from rvelens.hooks.rows import MASK_ENFORCED, MASKED
from rvelens.model.hook_root import Hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.seam.arguments import SHARING
from rvelens.seam.firing import check_returned
from rvelens.tokens.token_map import tokens_of

# Points whose hooks of several settings run side by side, each on its row.
_POINTS = ("attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z")


def edits_last_row(model: HookedLVLM, hooks: Hooks) -> bool:
    """Whether all hooks are row-local, and on scores, pattern or z of the decoder."""
    return all(
        is_row_local(hook) and point.startswith("blocks.") and point.endswith(_POINTS)
        for point, hook in points_of(model, hooks)
    )


def groups_of(model: HookedLVLM, settings: Sequence[Hooks]) -> list[list[int]]:
    """Groups of setting numbers that run in one forward; each other setting is its own group.

    Settings with `edits_last_row` run together, because their hooks can act on rows of one forward.
    """
    local = [n for n, hooks in enumerate(settings) if edits_last_row(model, hooks)]
    return [*([local] if local else []), *([n] for n in range(len(settings)) if n not in local)]


def merge_groups(groups: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """A tensor [batch setting ...] of all settings, in their order."""
    order = [n for group, _ in groups for n in group]
    together = torch.cat([x for _, x in groups], dim=1) if len(groups) > 1 else groups[0][1]
    if order == sorted(order):
        return together
    return together[:, torch.tensor(order).argsort()]


def points_of(model: HookedLVLM, hooks: Hooks) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each hook with each hook point that its name or filter matches."""
    for name, hook in hooks:
        for point in [name] if isinstance(name, str) else filter(name, model.hook_dict):
            yield point, hook


@dataclass(frozen=True, eq=False)
class EachRow:
    """The hooks of all settings at one hook point, each on the row of its setting.

    Hooks with an equal `alike` run with their `side_by_side`, because hundreds of separate calls would
    take longer than the model.
    """

    axis: int
    by_row: dict[int, list[Callable[..., Any]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, x: Float[Tensor, "*any"], hook: Any) -> Float[Tensor, "*any"]:
        """What each row's hooks make of it."""
        x = x.clone()
        for rows in self._groups:
            hooks = self.by_row[rows[0]]
            if len(rows) > 1:
                alike: Any = [self.by_row[row][0] for row in rows]
                # A slice where that is possible: picking rows out of a large tensor copies them.
                adjacent = rows == list(range(rows[0], rows[-1] + 1))
                at = slice(rows[0], rows[-1] + 1) if adjacent else rows
                x[:, :, at] = alike[0].side_by_side(alike, x[:, :, at], tokens_of(hook))
                continue
            row = x.narrow(self.axis, rows[0], 1)
            with _chained(hook) if len(hooks) > 1 else nullcontext():
                for row_hook in hooks:
                    row = check_returned(hook, row_hook, row_hook(row, hook), row)
            x.narrow(self.axis, rows[0], 1).copy_(row)
        return x

    @cached_property
    def _groups(self) -> list[list[int]]:
        groups: dict[Any, list[int]] = defaultdict(list)
        for row, hooks in self.by_row.items():
            # A subclass may edit otherwise, so it has to declare `side_by_side` again.
            declared = len(hooks) == 1 and "side_by_side" in vars(type(hooks[0]))
            alike = getattr(hooks[0], "alike", None) if declared else None
            groups[row if alike is None else (type(hooks[0]), alike)].append(row)
        return list(groups.values())

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError if a hook is for a model of another shape."""
        for hook in (hook for hooks in self.by_row.values() for hook in hooks):
            check = getattr(hook, "check", None)
            if check is not None:
                check(n_layers, n_heads)


@contextmanager
def _chained(hook: Any) -> Iterator[None]:
    """Tell each of several hooks of one setting that an earlier one may have hidden keys."""
    before = {name: hook.ctx.get(name) for name in (MASKED, MASK_ENFORCED)}
    hook.ctx.update({MASKED: True, MASK_ENFORCED: False})
    try:
        yield
    finally:
        hook.ctx.update(before)


@dataclass(eq=False)
class _Part:
    """Adjacent layers that run on the same rows.

    Attributes:
        start: the first of the layers.
        own: settings that have a row of their own, in the order of the rows; shared rows come behind.
        visible: the keys of these layers that belong to each setting, those of the prompt included.
        at: the row of each setting in the forward in progress.
        mask: what each row sees.
    """

    start: int
    own: list[int]
    visible: Bool[Tensor, "batch setting key"]
    at: Int[Tensor, "batch setting"]
    mask: Bool[Tensor, "batch 1 row key"] | None = None

    def place(self, numbers: Sequence[Sequence[int]]) -> Int[Tensor, "batch row"]:
        """Give each setting a row, and each row the keys of its settings.

        Args:
            numbers: a number for what each setting of each sample said; the same for the same tokens.

        Returns:
            a setting for each row. Samples with fewer rows than others repeat their last one.
        """
        device = self.visible.device
        at, of_row = zip(*(_rows(self.own, answer) for answer in numbers), strict=True)
        width = max(map(len, of_row))
        settings = torch.tensor(
            [row + row[-1:] * (width - len(row)) for row in of_row], device=device
        )
        self.at = torch.tensor(at, device=device)
        mine = self.at[:, :, None] == torch.arange(width, device=device)
        self.visible = torch.cat([self.visible, mine], dim=2)
        batch = torch.arange(len(settings), device=device)[:, None]
        self.mask = self.visible[batch, settings][:, None]
        return settings


def _rows(own: list[int], numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """The row of each setting, and a setting of each row: own ones first, then one for all alike."""
    of_row, at, shared = list(own), [0] * len(numbers), dict[int, int]()
    ranks = {setting: row for row, setting in enumerate(own)}
    for setting, number in enumerate(numbers):
        if setting in ranks:
            at[setting] = ranks[setting]
            continue
        if number not in shared:
            shared[number] = len(of_row)
            of_row.append(setting)
        at[setting] = shared[number]
    return at, of_row


class SideBySide:
    """The rows of several settings in the forwards after a prompt.

    Args:
        model: the hooked model.
        settings: the hooks of each setting.
        mask: which keys of the prompt, except the last, are not padding.
    """

    def __init__(
        self, model: HookedLVLM, settings: Sequence[Hooks], mask: Bool[Tensor, "batch key"]
    ) -> None:
        self._model, self._settings = model, settings
        shares = type(model.hf_model.get_decoder()).__name__ in SHARING
        firsts = [_first_layer(model, hooks) if shares else 0 for hooks in settings]
        visible = repeat(mask, "batch key -> batch setting key", setting=len(settings))
        nowhere = torch.zeros(visible.shape[:2], dtype=torch.long, device=visible.device)
        self._parts = [
            _Part(start, [n for n, first in enumerate(firsts) if first <= start], visible, nowhere)
            for start in sorted({0, *firsts})
            if start < model.n_layers
        ]
        self._answer_numbers = [[0] * len(settings) for _ in mask]
        config: Any = model.hf_model.get_decoder().config
        # Eager attention adds its mask; SDPA takes bits.
        self._adds = config._attn_implementation == "eager"
        self._widening: list[Int[Tensor, "batch row"]] = []

    def hooks(self) -> list[tuple[str, EachRow]]:
        """The hooks of all settings, as one hook per hook point."""
        points: dict[str, EachRow] = {}
        for setting, hooks in enumerate(self._settings):
            for point, hook in points_of(self._model, hooks):
                part = self._part_of(_layer_of(point))
                row = part.own.index(setting) if setting in part.own else 0
                axis = 1 if point.endswith("hook_z") else 2
                points.setdefault(point, EachRow(axis)).by_row[row].append(hook)
        return list(points.items())

    def _part_of(self, layer: int) -> _Part:
        return [part for part in self._parts if part.start <= layer][-1]

    def place(
        self, ids: Int[Tensor, "batch setting"]
    ) -> tuple[Int[Tensor, "batch row"], Shaped[Tensor, "batch 1 row key"]]:
        """Set the rows of the next forward; returns the tokens and the mask for the model."""
        numbers: dict[tuple[int, int], int] = {}
        self._answer_numbers = [
            [numbers.setdefault(both, len(numbers)) for both in zip(before, now, strict=True)]
            for before, now in zip(self._answer_numbers, ids.tolist(), strict=True)
        ]
        settings = [part.place(self._answer_numbers) for part in self._parts]
        self._widening = [
            deeper.at.gather(1, of_row)
            for deeper, of_row in zip(self._parts, settings[1:], strict=False)
        ]
        return ids.gather(1, settings[0]), self._mask_of(self._parts[0])

    def _mask_of(self, part: _Part) -> Shaped[Tensor, "batch 1 row key"]:
        """What the layers of a part may see, as the model's attention takes it."""
        mask = part.mask
        assert mask is not None
        if not self._adds:
            return mask
        dtype = self._model.hf_model.dtype
        added = torch.zeros_like(mask, dtype=dtype)
        return added.masked_fill(~mask, torch.finfo(dtype).min)

    def of_settings(
        self, logits: Float[Tensor, "batch row vocab"]
    ) -> Float[Tensor, "batch setting vocab"]:
        """The logits of each setting, from the logits of the rows."""
        last = self._parts[-1]
        if len(last.own) == len(self._settings):
            return logits
        return logits.gather(1, last.at[:, :, None].expand(-1, -1, logits.shape[2]))

    @contextmanager
    def widening(self) -> Iterator[None]:
        """A context in which shared rows are split between the layers of the decoder."""
        later = self._parts[1:]
        layers: Any = self._model.hf_model.get_decoder().layers if later else []
        handles = []
        for number, layer in enumerate(layers):
            n_part = sum(part.start <= number for part in later)
            if n_part:
                is_first = later[n_part - 1].start == number
                widen = partial(self._widen, n_part, is_first)
                handles.append(layer.register_forward_pre_hook(widen, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _widen(
        self, n_part: int, is_first: bool, module: Any, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before a layer: the rows, mask and positions of its part."""
        named = {"hidden_states": args[0], **kwargs} if args else dict(kwargs)
        x, mask = named["hidden_states"], self._mask_of(self._parts[n_part])
        if is_first:
            index = self._widening[n_part - 1].to(x.device)[:, :, None]
            x = x.gather(1, index.expand(-1, -1, x.shape[2]))
        named |= {"hidden_states": x, "attention_mask": mask.to(x.device)}
        # Every row of a sample has the same position.
        for name in ("position_ids", "position_embeddings"):
            named[name] = _as_wide(named[name], x.shape[1])
        return args[1:], named


def _as_wide(positions: Any, n_rows: int) -> Any:
    """Positions [batch row ...] of the first row for any number of rows, or several such tensors."""
    if isinstance(positions, tuple):
        return tuple(_as_wide(x, n_rows) for x in positions)
    return positions[:, :1].expand(-1, n_rows, *positions.shape[2:])


def _first_layer(model: HookedLVLM, hooks: Hooks) -> int:
    """The first layer that is hooked; behind the last one where none is."""
    return min((_layer_of(point) for point, _ in points_of(model, hooks)), default=model.n_layers)


def _layer_of(point: str) -> int:
    """The layer of a hook point; 0 for names of none, which are refused where hooks are put on."""
    number = point.split(".")[1] if point.startswith("blocks.") else ""
    return int(number) if number.isdecimal() else 0
