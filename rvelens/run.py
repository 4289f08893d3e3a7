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
from transformer_lens.hook_points import HookPoint

from rvelens.carried import carried_map, carry_map
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
    """

    input_ids: Int[Tensor, "batch key"] | None = None
    attention_mask: Any = None
    visual: Bool[Tensor, "batch key"] | None = None
    visual_ids: tuple[int, ...] | None = None

    def is_known(self, n_query: int) -> bool:
        """Whether it tells the roles of `n_query` new tokens."""
        if self.visual is not None:
            return self.visual.shape[1] == n_query
        return self.input_ids is not None and self.input_ids.shape[1] == n_query

    def roles(self, batch: int, n_past: int, n_query: int) -> TokenMap | None:
        """The map of the new tokens; None if nothing tells their roles."""
        if not self.is_known(n_query):
            return None
        visual = self.visual
        if visual is None:
            assert self.input_ids is not None
            ids = torch.tensor(self.visual_ids or (), device=self.input_ids.device)
            visual = torch.isin(self.input_ids, ids.to(self.input_ids.dtype))
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
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention")
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2:
        return mask[:, -n_query:].bool()
    if mask.dim() != 4 or mask.shape[-1] < n_past + n_query:
        return None
    new = mask[..., n_past : n_past + n_query]
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
    n_forwards: int = 0
    firing: int = 0
    _outer: list[Outer] = field(default_factory=list, repr=False)
    _prompts: dict[int, Prompt] = field(default_factory=dict, repr=False)

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

    def begin(self, batch: int, n_query: int, cache: Any) -> None:
        """Find the token map as the decoder starts on `n_query` rows behind what `cache` holds.

        Raises:
            RuntimeError: the model is running in another thread.
            ValueError: the caller's map does not fit.
        """
        self._enter()
        prompt = self._prompts.pop(threading.get_ident(), Prompt())
        self.row, self.fired = None, set()
        self.n_query = n_query
        self.n_forwards += 1
        if n_query == 1 and self.given is None and prompt.visual is None and self.advance(cache):
            return
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        self.tokens = self._map(prompt, batch, n_past, n_query, cache)
        if self.tokens is not None and n_query > 1:
            row = self.tokens.last - (self.tokens.n_keys - n_query)
            self.row = None if bool((row == n_query - 1).all()) else row

    def advance(self, cache: Any) -> bool:
        """Go on by one generated token behind a static cache; False behind another cache.

        Never waits for the device, and does the same at every step, so that it can be compiled.
        """
        tokens = carried_map(cache)
        if tokens is None or tokens.length is None:
            return False
        tokens.advance()
        self.tokens, self.row, self.n_query = tokens, None, 1
        return True

    def _map(
        self, prompt: Prompt, batch: int, n_past: int, n_query: int, cache: Any
    ) -> TokenMap | None:
        if self.given is not None:
            return self._given_map(self.given, batch, n_past + n_query)
        past = carried_map(cache) if n_past else None
        if past is not None and (n_past > past.n_keys or batch % past.batch):
            past = None  # someone else filled the cache, or picked samples of it
        if n_past == 0 or n_query > 1 or prompt.visual is not None:
            new = prompt.roles(batch, n_past, n_query)
            if n_past == 0 or new is None:
                return new
            return None if past is None else past.crop(n_past).expand(batch).append(new)
        return None if past is None else past.crop(n_past).expand(batch).extend(n_query)

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
        if cache is None or (self.tokens is not None and self.tokens.length is not None):
            return
        tokens = self.tokens
        if tokens is not None and cache.is_compileable:
            tokens = tokens.on_static_cache(int(cache.get_max_length()))
        carry_map(cache, tokens)

    def _enter(self) -> None:
        thread = threading.get_ident()
        if not self.firing:
            self._outer = [outer for outer in self._outer if outer.thread != thread]  # interrupted
        if self._outer and self._outer[-1].thread != thread:
            raise RuntimeError(
                "a forward starts while another thread runs the same model: expected one forward at a "
                "time, since hooks belong to the model; load the model once a thread, or take a lock."
            )
        self._outer.append(
            Outer(self.tokens, self.n_query, self.row, self.fired, thread)
        )

    def is_mine(self) -> bool:
        """Whether the forward that ends had begun: another thread's may have been refused."""
        return bool(self._outer) and self._outer[-1].thread == threading.get_ident()

    def leave(self) -> None:
        """The decoder is done or failed: what started it from a hook finds its own state again."""
        outer = self._outer.pop()
        if self._outer:
            self.tokens, self.n_query, self.row = outer.tokens, outer.n_query, outer.row
            self.fired = outer.fired

    def drop(self, depth: int) -> None:
        """Forget forwards that were interrupted: those beyond `depth`."""
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


    def keep(self, point: HookPoint, x: Tensor) -> None:
        """Keep what a hook made until it is checked: as it is where it is one row, else its sum.

        NaN and infinity stay in a sum.
        """
        x = x.detach()
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
        if not unchecked:
            return
        device = unchecked[0][1].device
        sums = torch.stack([x.sum(dtype=torch.float32).to(device) for _, x in unchecked])
        finite = sums.isfinite()
        if not bool(finite.all()):
            point = unchecked[int(finite.int().argmin())][0]
            raise ValueError(
                f"the attention of {(point.name or '').rpartition('.')[0]} is not finite after its "
                "hooks: expected finite scores, pattern and z; look for a division by zero or an "
                "overflow in the hooks on this layer."
            )
