"""Conditions on hooks of any kind: some steps of a generation, some layers, heads, or a region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.hooks.declared import edits_in_place, is_row_local
from rvelens.hooks.names import KEYED, layer_of
from rvelens.hooks.rows import region_keys
from rvelens.tokens.token_map import tokens_of

# Names of ranges of new tokens.
STEPS = {"all": "1-", "prefill": "1", "decode": "2-"}
# Points [batch query head ...]; those of `KEYED` have heads before rows.
_HEADED = (
    "attn.hook_z",
    "attn.hook_q",
    "attn.hook_rot_q",
    "attn.hook_result",
)


@dataclass(frozen=True, eq=False)
class Restricted:
    """A hook whose edit counts at some new tokens, in some heads, or on some keys alone.

    At other new tokens the hook is not called.

    Attributes:
        hook: what is restricted.
        first, last: numbers of new tokens, from 1 on and the last included; None for no end. The first
            one is that of the prompt's forward, with every row of it.
        heads: heads that are edited; None for all.
        region: image tokens that are edited, by sample; None for all keys.
    """

    in_place: ClassVar[bool] = False
    hook: Any
    first: int = 1
    last: int | None = None
    heads: tuple[int, ...] | None = None
    region: Bool[Tensor, "batch image"] | None = field(default=None, repr=False)
    _copies: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Read here: a compiled graph cannot follow the look at a class.
        object.__setattr__(self, "_copies", edits_in_place(self.hook))

    @property
    def query_rows(self) -> str:
        """The rows that the hook needs to see."""
        return getattr(self.hook, "query_rows", "last")

    def __call__(self, x: Shaped[Tensor, "*any"], hook: Any) -> Shaped[Tensor, "*any"] | None:
        """What the hook makes of `x` where the conditions hold, and `x` elsewhere."""
        inside = self._is_inside(hook, x.device)
        if inside is False:
            return None
        before = x.clone() if self._copies else x
        edited = self.hook(before, hook)
        edited = before if edited is None else edited
        for condition in (inside, self._heads(x, hook), self._keys(x, hook)):
            if isinstance(condition, Tensor):
                edited = torch.where(condition, edited, x)
        return edited

    def _is_inside(self, hook: Any, device: torch.device) -> bool | Bool[Tensor, ""]:
        """Whether the new token that the forward predicts is meant; on the device where it counts.

        A forward that adds several tokens is a piece of a prompt, and predicts the first new token.
        """
        first, last = self.first - 1, None if self.last is None else self.last - 1
        if (first, last) == (0, None):
            return True
        tokens = tokens_of(hook)
        if tokens.length is None or (first, last) in ((1, None), (0, 0)):
            # Behind a static cache every counted token is a later one than the first.
            behind = tokens.n_seen - tokens.n_known if tokens.length is None else 1
            return first <= behind and (last is None or behind <= last)
        behind = tokens.length.to(device) - tokens.n_known
        inside = behind >= first
        return inside if last is None else inside & (behind <= last)

    def _heads(self, x: Shaped[Tensor, "*any"], hook: Any) -> bool | Shaped[Tensor, "*heads"]:
        if self.heads is None:
            return True
        axis = 1 if hook.name.endswith(KEYED) else 2
        chosen = torch.zeros(x.shape[axis], dtype=torch.bool, device=x.device)
        chosen[list(self.heads)] = True
        return chosen.view(-1, *[1] * (x.dim() - axis - 1))

    def _keys(self, x: Shaped[Tensor, "*any"], hook: Any) -> bool | Shaped[Tensor, "*keys"]:
        if self.region is None:
            return True
        return region_keys(self.region, tokens_of(hook), x.shape[-1], x.device)[:, None, None]

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError where the model has no such head, or the hook is for another model."""
        wrong = [head for head in self.heads or () if not 0 <= head < n_heads]
        if wrong:
            raise ValueError(
                f"a hook restricted to heads {wrong} of {n_heads}: expected heads from 0 to "
                f"{n_heads - 1}; name heads of the model."
            )
        check = getattr(self.hook, "check", None)
        if check is not None:
            check(n_layers, n_heads)


@dataclass(frozen=True, eq=False)
class RowLocalRestricted(Restricted):
    """A restricted hook that looks at the last row and its image tokens alone, at every new token.

    Settings side by side are rows of one forward, in which no row tells the number of its new token.
    So a hook with a condition on new tokens is not of this class and runs by itself.
    """

    row_local: ClassVar[bool] = True
    in_place: ClassVar[bool] = False


@refuse_wrong_types
def restrict(
    hooks: Iterable[tuple[Any, Any]],
    *,
    steps: str = "all",
    layers: Iterable[int] | None = None,
    heads: Mapping[int, Iterable[int]] | Iterable[int] | None = None,
    region: Bool[Tensor, "batch image"] | None = None,
) -> list[tuple[str, Any]]:
    """The same hooks, at work under conditions alone; hooks of one's own too.

    New tokens count from 1. The prompt's forward predicts the first one, so "prefill" is "1". Behind a
    further piece of prompt, as in a conversation, they count from 1 again.

    Args:
        hooks: (hook name, hook), as the functions of this package return them.
        steps: "all", "prefill" (the prompt's forward), "decode" (every later one), or numbers of new
            tokens: "3-" from the third one on, "3-7", "2".
        layers: layers whose hooks stay; None for all.
        heads: heads that are edited, the same in every layer or by layer; hooks of layers that are not
            named go. None for all heads.
        region: image tokens that are edited, by sample of the batch that will run; None for every key.

    Returns:
        (hook name, hook) for `model.hooks(...)`. Without a condition, the hooks as they are.

    Raises:
        ValueError: steps that are no range, no hook left, or a point whose tensor does not have what
            the condition is about; when added, a head that the model lacks.
    """
    first, last = parse_steps(steps)
    chosen = None if layers is None else set(layers)
    by_layer = heads if isinstance(heads, Mapping) else None
    every = None if heads is None or by_layer is not None else tuple(sorted(set(heads)))
    restricted = []
    for name, hook in hooks:
        _check_point(name, (first, last) != (1, None), heads is not None, region is not None)
        layer = layer_of(name)
        if any(some is not None and layer not in some for some in (chosen, by_layer)):
            continue
        mine = every if by_layer is None else tuple(sorted(set(by_layer[layer])))
        if (first, last, mine, region) == (1, None, None, None):
            restricted.append((name, hook))
            continue
        local = (first, last) == (1, None) and is_row_local(hook)
        kind = RowLocalRestricted if local else Restricted
        restricted.append((name, kind(hook, first, last, mine, region)))
    if not restricted:
        raise ValueError(
            "no hook is left in these layers: expected layers that the hooks are on; name others."
        )
    return restricted


def parse_steps(steps: str) -> tuple[int, int | None]:
    """First and last number of the new tokens that a text means; None where there is no end.

    Raises:
        ValueError: not of the form "all", "prefill", "decode", "3-", "3-7" or "2".
    """
    text = STEPS.get(steps, steps)
    first, dash, last = text.partition("-")
    if first.isdecimal() and (not last or last.isdecimal()):
        ends = int(first), (int(last) if last else None if dash else int(first))
        if ends[0] >= 1 and (ends[1] is None or ends[1] >= ends[0]):
            return ends
    raise ValueError(
        f"steps {steps!r}: expected {', '.join(STEPS)}, or numbers of new tokens from 1 on, as in 3- "
        "or 3-7; write one of them."
    )


def _check_point(name: Any, by_step: bool, by_head: bool, by_region: bool) -> None:
    """Raise ValueError for a condition that the tensor of a hook point cannot be put under."""
    if not isinstance(name, str):
        raise ValueError(
            "a filter of hook names cannot be restricted: expected a name; list the hooks by name."
        )
    if name.startswith("vision.") or name == "hook_image_features":
        raise ValueError(
            f"{name} runs while the image is read, at no new token and with no keys of the decoder: "
            "expected a point of the decoder; leave it out."
        )
    if by_head and not name.endswith((*KEYED, *_HEADED)):
        raise ValueError(
            f"{name} has no axis of query heads: expected scores, pattern, z, q or result; leave out "
            "heads."
        )
    if by_region and not name.endswith("attn.hook_attn_scores"):
        raise ValueError(
            f"{name} has no scores of image tokens before the softmax: expected hook_attn_scores; "
            "leave out region."
        )
