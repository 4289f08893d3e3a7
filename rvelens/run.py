"""The forward in progress: which rows are opened, and where its visual tokens are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import pad
from transformer_lens.hook_points import HookPoint

from rvelens.carried import carried_map, carry_map, map_behind
from rvelens.tokens import TokenMap

QueryRows = Literal["last", "all"]
# Numbers that hooks made, of generated tokens, above which they are checked: 16 MiB in float32.
MOST_UNCHECKED = 2**22


@dataclass
class Prompt:
    """What is known of the tokens that the coming forward adds, before the decoder starts.

    Attributes:
        input_ids: of the new tokens; None where the model was given embeddings.
        attention_mask: of the new tokens, or of those in the cache too; false is padding.
        visual: the visual tokens among the new ones, as the model itself marked them.
        visual_ids: token ids that stand for visual tokens, for models that do not mark them; None
            for those that do.
        has_visual: whether the model was given images or videos in any form; None if that is unknown.
    """

    input_ids: Int[Tensor, "batch key"] | None = None
    attention_mask: Any = None
    visual: Bool[Tensor, "batch key"] | None = None
    visual_ids: tuple[int, ...] | None = None
    has_visual: bool | None = None

    def _visual(self, n_past: int, n_query: int) -> Bool[Tensor, "batch key"] | None:
        """Which of the new tokens are visual; None if nothing tells."""
        visual, ids = self.visual, self.input_ids
        if visual is None and ids is not None:
            visual = torch.isin(ids, ids.new_tensor(self.visual_ids or ()))
        if visual is None or visual.shape[1] not in (n_query, n_past + n_query):
            return None
        return visual[
            :, -n_query:
        ]  # some models mark the whole prompt, of which a cache holds a part

    def roles(self, batch: int, n_past: int, n_query: int) -> TokenMap | None:
        """The map of the new tokens; None if nothing tells their roles."""
        visual = self._visual(n_past, n_query)
        if visual is None:
            return None
        real = real_tokens(self.attention_mask, n_past, n_query)
        real = torch.ones_like(visual) if real is None else real.to(visual.device)
        n_rows = max(len(real), len(visual))  # beams: one of them was repeated already
        if not (n_rows % len(real) == n_rows % len(visual) == batch % n_rows == 0):
            return None
        real = real.repeat_interleave(n_rows // len(real), dim=0)
        visual = visual.repeat_interleave(n_rows // len(visual), dim=0)
        return TokenMap.from_masks(visual & real, real).expand(batch)


def real_tokens(mask: Any, n_past: int, n_query: int) -> Bool[Tensor, "batch key"] | None:
    """Which of the new tokens are no padding, by any mask of transformers; None if it does not tell.

    Args:
        mask: by key [batch key], by row and key [batch head query key] (true or 0 where a row may
            look), or several of the latter by kind of layer.
        n_past: keys before the new tokens.
        n_query: new tokens.
    """
    n_keys = n_past + n_query
    if isinstance(mask, Mapping):
        kinds = [m for m in mask.values() if isinstance(m, Tensor) and m.shape[-1] >= n_keys]
        mask = mask.get("full_attention", kinds[0] if kinds else None)
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2:
        if mask.shape[1] == n_query:
            return mask.bool()
        # A mask that is too short means padding behind it, to transformers as well.
        return pad(mask.bool(), (0, max(n_keys - mask.shape[1], 0)))[:, n_past:n_keys]
    if mask.dim() != 4 or mask.shape[-1] < n_keys:
        return None
    new = mask[..., n_past:n_keys]
    seen = new if new.dtype == torch.bool else new > torch.finfo(new.dtype).min
    return seen.flatten(1, 2).any(dim=1)  # a key that no row sees is padding


@dataclass
class Outer:
    """What the run knew when a hook started another forward."""

    tokens: TokenMap | None
    n_query: int
    row: Int[Tensor, " batch"] | None
    fired: set[int]
    thread: int


@dataclass
class Run:
    """What the layers of one model share during a forward.

    Attributes:
        query_rows: "last" opens the row of each sample's last real token, "all" opens every row.
        enforce_mask: hide again, after the hooks on scores, what the attention mask hides.
        tokens: the token map of this forward; None if the roles of its tokens are unknown.
        n_query: rows of this forward.
        row: index of the last real token on the query axis; None where it is the final row for all.
        context_level: how many `hooks` contexts are open, in all wrappers of the model together.
        unchecked: what hooks made, of the latest steps: not yet checked for NaN and infinity.
        fired: layers whose hook points have run in this forward.
        given: a map that the caller gave, of all tokens up to the end of the prompt.
        flagged: hook points with a flag on the device that compiled steps raise.
        n_forwards: forwards of the decoder that began.
        firing: hooks that are running; only inside one may another forward begin.
    """

    query_rows: QueryRows = "last"
    enforce_mask: bool = True
    tokens: TokenMap | None = None
    n_query: int = 0
    row: Int[Tensor, " batch"] | None = None
    context_level: int = 0
    unchecked: list[tuple[HookPoint, Tensor]] = field(default_factory=list)
    fired: set[int] = field(default_factory=set)
    given: TokenMap | None = None
    flagged: dict[int, Any] = field(default_factory=dict, repr=False)
    n_forwards: int = 0
    firing: int = 0
    _outer: list[Outer] = field(default_factory=list, repr=False)
    _prompts: dict[int, Prompt] = field(default_factory=dict, repr=False)
    _aside: dict[int, TokenMap | None] = field(default_factory=dict, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "query_rows" and value not in get_args(QueryRows):
            raise ValueError(
                f"query_rows is {value!r}: expected 'last' or 'all'; pass one of them."
            )
        super().__setattr__(name, value)

    @property
    def prompt(self) -> Prompt:
        """What is known of this thread's coming forward."""
        return self._prompts.setdefault(threading.get_ident(), Prompt())

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self._prompts[threading.get_ident()] = prompt

    @property
    def depth(self) -> int:
        """Forwards in progress; several where a hook starts another one."""
        return len(self._outer)

    @contextmanager
    def giving(self, tokens: TokenMap | None) -> Iterator[None]:
        """Take the roles of the prompt's tokens from a map that the caller gave; clean up afterwards.

        Whatever ends the forwards inside, Ctrl-C included, the run is then as it was before.
        """
        depth, before = self.depth, self.given
        self.given = tokens
        self.forget_prompt()
        try:
            yield
            if not self.firing:
                self.check()
        finally:
            if not self.firing:
                self.unchecked = []
            self.given = before
            self.forget_prompt()
            self.drop(depth)

    def forget_prompt(self) -> None:
        """Drop what is known of a forward that never came."""
        self._prompts.pop(threading.get_ident(), None)

    def begin(self, batch: int, n_query: int, cache: Any, hooked: bool) -> None:
        """Find the token map as the decoder starts on `n_query` rows behind what `cache` holds.

        Args:
            batch, n_query: samples and rows of the forward.
            cache: its cache, if it has one.
            hooked: whether hooks are on.

        Raises:
            RuntimeError: hooks are on and the model is running in another thread.
            ValueError: the caller's map does not fit.
        """
        thread = threading.get_ident()
        prompt = self._prompts.pop(thread, Prompt())
        self.n_forwards += 1
        if not self.firing:
            self._aside.pop(thread, None)  # of a forward that was interrupted
        if self._is_busy(thread):
            if hooked:
                raise RuntimeError(
                    "a forward starts while another thread runs the same model: expected one forward "
                    "at a time under hooks, which belong to the model; load the model once a thread, "
                    "or take a lock."
                )
            self._aside[thread] = self._map(prompt, batch, n_query, cache)
            return
        self._outer.append(Outer(self.tokens, self.n_query, self.row, self.fired, thread))
        self.row, self.fired, self.n_query = None, set(), n_query
        self.tokens = self._map(prompt, batch, n_query, cache)
        if self.tokens is not None and n_query > 1:
            row = self.tokens.last - (self.tokens.n_keys - n_query)
            self.row = None if bool((row == n_query - 1).all()) else row

    def _is_busy(self, thread: int) -> bool:
        """Whether another thread is in a forward."""
        if not self.firing:  # this thread's own forward was interrupted
            self._outer = [outer for outer in self._outer if outer.thread != thread]
        others = bool(self._aside.keys() - {thread})
        return others or (bool(self._outer) and self._outer[-1].thread != thread)

    def advance(self, cache: Any) -> None:
        """Go on by one generated token behind a static cache, as every compiled step does."""
        tokens = carried_map(cache)
        assert tokens is not None
        tokens.advance()
        self.tokens, self.row, self.n_query = tokens, None, 1

    def _map(self, prompt: Prompt, batch: int, n_query: int, cache: Any) -> TokenMap | None:
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        if self.given is not None:
            return self._given_map(self.given, batch, n_past + n_query)
        past = map_behind(cache, n_past, batch)
        generated = past is not None and n_query == 1 and prompt.visual is None
        if generated and past is not None and past.blank:
            real = real_tokens(prompt.attention_mask, n_past, 1)
            generated = real is None or bool(real.all())
        if generated and past is not None:
            static = carried_map(cache)
            if static is not None and static.length is not None:
                static.advance()
                return static
            return past.extend(1)
        new = prompt.roles(batch, n_past, n_query)
        if n_past == 0 or new is None:
            return new
        return None if past is None else past.append(new)

    def _given_map(self, given: TokenMap, batch: int, n_keys: int) -> TokenMap:
        if n_keys > given.n_keys or batch % given.batch:
            raise ValueError(
                f"a token map of {given.batch} samples x {given.n_keys} tokens for a forward of "
                f"{batch} x {n_keys}: expected a map of every token up to the end of the prompt, those "
                "in the cache included; pass tokens=TokenMap.from_masks(image, real)."
            )
        if n_keys == given.n_keys:
            self.given = None  # what comes after the prompt is generated
        return given.crop(n_keys).expand(batch)

    def end(self, cache: Any) -> None:
        """The decoder is done: its cache takes the map along."""
        tokens = self._aside.get(threading.get_ident(), self.tokens)
        if cache is None or (tokens is not None and tokens.length is not None):
            return
        if tokens is not None and cache.is_compileable:
            slides = all(cache.is_sliding)
            n_slots = int(cache.get_max_length())
            # A cache of sliding windows holds any number of tokens, one after the other.
            tokens = tokens.on_static_cache(tokens.n_keys + n_slots + 1 if slides else n_slots)
        carry_map(cache, tokens)

    def is_mine(self) -> bool:
        """Whether the forward that ends had begun: another thread's may have been refused."""
        thread = threading.get_ident()
        return thread in self._aside or bool(self._outer and self._outer[-1].thread == thread)

    def leave(self) -> None:
        """The decoder is done or failed: what started it from a hook finds its own state again."""
        if self._aside.pop(threading.get_ident(), self) is not self:
            return
        outer = self._outer.pop()
        if self._outer:
            self.tokens, self.n_query, self.row = outer.tokens, outer.n_query, outer.row
            self.fired = outer.fired

    def drop(self, depth: int) -> None:
        """Forget forwards that were interrupted: those beyond `depth`."""
        self._aside.pop(threading.get_ident(), None)
        while self.depth > depth:
            self.leave()

    def row_of(self, n_rows: int, point: str | None) -> Int[Tensor, " batch"] | None:
        """`row` in a layer that computes the newest `n_rows` rows alone.

        Raises:
            NotImplementedError: a sample's last real token is not among them.
        """
        if self.row is None or n_rows == self.n_query:
            return self.row
        row = self.row - (self.n_query - n_rows)
        if bool((row < 0).any()):
            raise NotImplementedError(
                f"{point} computes the newest {n_rows} of {self.n_query} rows, and some prompts end in "
                "padding before them: expected left-padded prompts; make them with model.prepare."
            )
        return row

    def check_running(self, point: str | None) -> None:
        """Raise RuntimeError where a hooked layer runs outside of a forward of the model."""
        if self._outer:
            return
        raise RuntimeError(
            f"{point} runs outside of a forward of the model: expected hooks to run inside one, where "
            "the visual tokens are known; turn gradient checkpointing off, which runs layers again in "
            "backward, and call the whole model."
        )

    def keep(self, point: Any, x: Tensor) -> None:
        """Keep what a hook made until it is checked: as it is where it is one row, else its sum.

        NaN and infinity stay in a sum. A compiled graph cannot hand out tensors at every step; it
        raises a flag on the device instead.
        """
        x = x.detach()
        if is_compiling():
            if point.flag is not None:
                point.flag.logical_or_(x.sum(dtype=torch.float32).isfinite().logical_not())
            return
        if point.flag is None or point.flag.device != x.device:
            point.flag = torch.zeros((), dtype=torch.bool, device=x.device)
            self.flagged[id(point)] = point
        self.unchecked.append((point, x if self.n_query == 1 else x.sum(dtype=torch.float32)))

    def is_check_due(self) -> bool:
        """Whether to check now: behind a prompt, and every few generated tokens.

        A check waits for the device; what is wrong stays wrong in the cache, so it is not missed.
        """
        if self.n_query > 1:
            return bool(self.unchecked)
        return sum(x.numel() for _, x in self.unchecked) > MOST_UNCHECKED

    def check(self) -> None:
        """Name the first layer in which a hook put NaN or infinity; waits for the device once.

        Raises:
            ValueError: what some hook made is not finite.
        """
        unchecked, self.unchecked = self.unchecked, []
        tests = [(point, x.sum(dtype=torch.float32).isfinite()) for point, x in unchecked]
        if self.tokens is not None and self.tokens.length is not None:  # steps that may be compiled
            tests += [(point, ~point.flag) for point in self.flagged.values()]
        if not tests:
            return
        finite = torch.stack([test.to(tests[0][1].device) for _, test in tests])
        if not bool(finite.all()):
            point = tests[int(finite.int().argmin())][0]
            for flagged in self.flagged.values():
                flagged.flag.zero_()
            raise ValueError(
                f"the attention of {(point.name or '').rpartition('.')[0]} is not finite after its "
                "hooks: expected finite scores, pattern and z; look for a division by zero or an "
                "overflow in the hooks on this layer."
            )
