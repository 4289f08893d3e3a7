"""The forwards in progress: which rows are opened, and where their visual tokens are."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.compiler import is_compiling
from transformer_lens.hook_points import HookPoint

from rvelens.files.wording import counted
from rvelens.tokens.carried import carry_map, has_map, map_behind, release_keys, static_map
from rvelens.tokens.masks import real_tokens
from rvelens.tokens.new_tokens import NewTokens
from rvelens.tokens.outlasting import outlasting
from rvelens.tokens.token_map import TokenMap

# What torch runs for a call of any module.
_CALL = nn.Module._call_impl.__code__
QueryRows = Literal["last", "all"]
# Numbers that hooks made, of generated tokens, above which they are checked: 16 MiB in float32.
MOST_UNCHECKED = 2**22


@dataclass(eq=False)
class Forward:
    """One forward of the decoder.

    Attributes:
        n_query: its rows.
        tokens: its token map; None if the roles of its tokens are unknown.
        hooked: whether hooks were on when it began; else its layers run as if there were none.
        row: index of the last real token on the query axis; None where it is the final row for all.
        least_row: the smallest of these numbers, negative where a sample's rows are padding alone.
        fired: layers whose hook points have run, and points that are read at modules.
        skipped: layers whose attention runs without its hooks.
    """

    n_query: int = 1
    tokens: TokenMap | None = None
    hooked: bool = True
    row: Int[Tensor, " batch"] | None = None
    least_row: int = 0
    fired: set[Any] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)


class ThreadState(threading.local):
    """What each thread knows of its own forwards of a model.

    Attributes:
        forwards: those in progress, the innermost last; a hook may start another one.
        firing: hooks that are running; each may have started one forward.
        coming: what is known of the tokens of the next forward.
        given: a map that the caller gave, of all tokens up to the end of the prompt.
        n_forwards: forwards that began.
    """

    def __init__(self) -> None:
        self.forwards: list[Forward] = []
        self.firing = 0
        self.coming = NewTokens()
        self.given: TokenMap | None = None
        self.n_forwards = 0


def _is_inside(thread: threading.Thread | None, module: nn.Module) -> bool:
    """Whether a thread runs a module now. After Ctrl-C it does not, and no torch hook told so."""
    frame = None if thread is None else sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is _CALL and frame.f_locals.get("self") is module:
            return True
        frame = frame.f_back
    return False


def refuse_checkpointing(hooked: nn.Module) -> None:
    """Raise NotImplementedError if backward would run layers of a hooked decoder or tower again."""
    if torch.is_grad_enabled() and any(
        m.training and getattr(m, "gradient_checkpointing", False) for m in hooked.modules()
    ):
        raise NotImplementedError(
            "hooks and gradient checkpointing are both on, and checkpointing runs layers again "
            "in backward: expected only one of them; turn checkpointing off."
        )


@dataclass(eq=False)
class Run:
    """What the layers of one model share.

    Attributes:
        query_rows: "last" opens the row of each sample's last real token, "all" opens every row.
        enforce_mask: hide again, after the hooks on scores, what the attention mask hides.
        latest: the token map of the latest forward.
        context_level: how many `hooks` contexts are open, in all wrappers of the model together.
        unchecked: what hooks made, of the latest steps: not yet checked for NaN and infinity.
        flagged: hook points with a flag on the device that compiled steps raise.
        step: the forward of a compiled decode step, whose graph reads plain attributes alone.
        in_step: whether that is what runs: inside any other graph hooks run uncompiled.
        hooking: the thread that turned hooks on last.
        in_use: whether hooks are on; a compiled graph is compiled again for another answer.
        is_changed: whether an attention function is another one than the self-check saw.
        here: this thread's forwards.
    """

    query_rows: QueryRows = "last"
    enforce_mask: bool = True
    latest: TokenMap | None = None
    context_level: int = 0
    unchecked: list[tuple[HookPoint, Tensor]] = field(default_factory=list)
    flagged: dict[int, Any] = field(default_factory=dict, repr=False)
    step: Forward = field(default_factory=Forward, repr=False)
    in_step: bool = False
    hooking: threading.Thread | None = field(default=None, repr=False)
    in_use: bool = False
    is_changed: bool = False
    here: ThreadState = field(default_factory=ThreadState, repr=False)
    _users: set[int] = field(default_factory=set, repr=False)
    _owner: threading.Thread | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "query_rows" and value not in get_args(QueryRows):
            raise ValueError(
                f"query_rows is {value!r}: expected 'last' or 'all'; pass one of them."
            )
        super().__setattr__(name, value)

    def note_use(self, owner: Any, on: bool) -> None:
        """Note whether hooks are on at the points of a layer or stream."""
        (self._users.add if on else self._users.discard)(id(owner))
        self.in_use = bool(self._users)

    def is_idle(self, cache: Any = None) -> bool:
        """Whether a forward that is compiled need not be followed: no hooks, and no map behind it.

        Following breaks the graph. What is not followed leaves a cache without a map.
        """
        return is_compiling() and not self.in_use and not has_map(cache)

    @property
    def depth(self) -> int:
        """This thread's forwards in progress; several where a hook starts another one."""
        return len(self.here.forwards)

    def forward_at(self, point: str | None) -> Forward:
        """The forward in which a hooked layer runs.

        Raises:
            RuntimeError: there is none.
        """
        if is_compiling():
            return self.step
        if self.here.forwards:
            return self.here.forwards[-1]
        raise RuntimeError(
            f"{point} runs outside of a forward of the model: expected hooks inside a forward, "
            "where the visual tokens are known; call the whole model, without gradient "
            "checkpointing."
        )

    @contextmanager
    def giving(self, tokens: TokenMap | None) -> Iterator[None]:
        """Take the roles of the prompt's tokens from a map that the caller gave; clean up afterwards.

        Whatever ends the forwards inside, Ctrl-C included, the run is then as it was before.
        """
        before, self.here.given = self.here.given, tokens
        self.forget_coming()
        try:
            yield
            self.check_outermost()
        finally:
            self.here.given = before
            self.forget_coming()
            self.drop_interrupted()

    def forget_coming(self) -> None:
        """Drop what is known of a forward that never came."""
        self.here.coming = NewTokens()

    def drop_interrupted(self) -> None:
        """Forget this thread's forwards that did not end, as after Ctrl-C."""
        here = self.here
        del here.forwards[here.firing :]
        if not here.firing:
            self.unchecked = []
        self._release()

    def begin(self, batch: int, n_query: int, cache: Any, hooked: bool, decoder: nn.Module) -> None:
        """Find the token map as the decoder starts on `n_query` rows behind what `cache` holds.

        Args:
            batch, n_query: samples and rows of the forward.
            cache: its cache, if it has one.
            hooked: whether hooks are on.
            decoder: the module that starts.

        Raises:
            RuntimeError: hooks are on and run in another thread.
            ValueError: the caller's map does not fit.
        """
        here = self.here
        del here.forwards[here.firing :]  # interrupted, if there are any
        new, here.coming = here.coming, NewTokens()
        here.n_forwards += 1
        if hooked:
            self._claim(decoder)
        forward = Forward(n_query, None, hooked)
        here.forwards.append(forward)
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        self.latest = forward.tokens = tokens = self._map(new, batch, n_past, n_query, cache)
        if n_query == 1:
            return
        if tokens is not None:
            row = tokens.last - (tokens.n_keys - n_query)
        else:  # the mask tells padding all the same
            row = new.last_rows(batch, n_past, n_query)
        if row is None:
            return
        least = int(row.min())  # waits for the device here, and not in every hooked layer
        if least < n_query - 1:
            forward.row, forward.least_row = row, least

    def _claim(self, decoder: nn.Module) -> None:
        """Let this thread's hooks run, and no other's: hook points are shared by all threads."""
        thread = threading.current_thread()
        with self._lock:
            if self._owner not in (None, thread) and _is_inside(self._owner, decoder):
                raise RuntimeError(
                    "a forward starts while another thread runs the same model under hooks: "
                    "expected one forward at a time, since hooks belong to the model; load the "
                    "model once for each thread, or use a lock."
                )
            self._owner = thread

    def _release(self) -> None:
        with self._lock:
            hooked = any(forward.hooked for forward in self.here.forwards)
            if self._owner is threading.current_thread() and not hooked:
                self._owner = None

    def advance(self, cache: Any) -> None:
        """Go on by one generated token behind a static cache, as every compiled step does."""
        tokens = static_map(cache)
        assert tokens is not None
        tokens.advance()
        self.latest = self.step.tokens = tokens
        self.in_step = True

    def _map(
        self, new: NewTokens, batch: int, n_past: int, n_query: int, cache: Any
    ) -> TokenMap | None:
        past, prompt_map = map_behind(cache, n_past, batch), None
        if self.here.given is not None:
            prompt_map = self._given_map(self.here.given, batch, n_past + n_query)
        release_keys(cache)
        if prompt_map is not None:
            return prompt_map
        generated = past is not None and n_query == 1 and new.visual is None
        if generated and past is not None and past.blank:
            real = real_tokens(new.attention_mask, n_past, 1)
            generated = real is None or bool(real.all())
        if generated and past is not None:
            static = static_map(cache)
            if static is not None:
                static.advance()
                return static
            return past.extend(1)
        roles = new.roles(batch, n_past, n_query)
        if n_past == 0 or roles is None:
            return roles
        if past is None:
            return None
        return past.append(roles, new.generated_before(past.n_known, n_past, n_query))

    def _given_map(self, whole: TokenMap, batch: int, n_keys: int) -> TokenMap:
        if n_keys > whole.n_keys or batch % whole.batch:
            raise ValueError(
                f"a token map of {whole.batch} samples x {whole.n_keys} tokens for a forward of "
                f"{batch} x {n_keys}: expected a map of every token up to the end of the prompt, those "
                "in the cache included; pass tokens=TokenMap.from_masks(image, real)."
            )
        if n_keys == whole.n_keys:
            self.here.given = None  # what comes after the prompt is generated
        return whole.crop(n_keys).expand(batch)

    def ending(self) -> Forward | None:
        """The forward that ends; None where it was refused before it began."""
        here = self.here
        return here.forwards[-1] if len(here.forwards) == here.firing + 1 else None

    def end(self, cache: Any) -> None:
        """The decoder is done: its cache takes the map along."""
        tokens = self.here.forwards[-1].tokens
        if cache is None:
            return
        if tokens is not None and tokens.length is None and cache.is_compileable:
            slides = all(cache.is_sliding)
            n_slots = int(cache.get_max_length())
            # A cache of sliding windows holds any number of tokens, one after the other.
            tokens = tokens.on_static_cache(tokens.n_keys + n_slots + 1 if slides else n_slots)
        carry_map(cache, tokens)

    def leave(self) -> None:
        """The decoder is done or failed: what started it from a hook finds its own state again."""
        forwards = self.here.forwards
        forwards.pop()
        if forwards:
            self.latest = forwards[-1].tokens
        self._release()

    def row_of(
        self, forward: Forward, n_rows: int, point: str | None
    ) -> Int[Tensor, " batch"] | None:
        """The row of each last real token in a layer that computes the newest `n_rows` rows alone.

        Raises:
            NotImplementedError: a sample's last real token is not among them.
        """
        if forward.row is None:
            return None
        earlier = forward.n_query - n_rows
        if forward.least_row < earlier:
            raise NotImplementedError(
                f"{point} computes the newest {n_rows} of "
                f"{counted(forward.n_query, 'row')}, and some "
                "prompts have only padding there: expected a real token of every prompt among them; "
                "make left-padded prompts with model.prepare, and run them in one forward."
            )
        return forward.row - earlier

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
        self.flag(point, x.device)
        one_row = self.here.forwards[-1].n_query == 1
        self.unchecked.append((point, x if one_row else x.sum(dtype=torch.float32)))

    def flag(self, point: Any, device: torch.device) -> None:
        """Give a hook point the flag that compiled steps raise."""
        if point.flag is None or point.flag.device != device:
            with outlasting():
                point.flag = torch.zeros((), dtype=torch.bool, device=device)
            self.flagged[id(point)] = point

    def is_check_due(self, n_query: int) -> bool:
        """Whether to check now: behind a prompt, and every few generated tokens.

        A check waits for the device; what is wrong stays wrong in the cache, so it is not missed.
        """
        if n_query > 1:
            return bool(self.unchecked)
        return sum(x.numel() for _, x in self.unchecked) > MOST_UNCHECKED

    def check_outermost(self) -> None:
        """`check`, but not inside a hook, whose own forward is checked later."""
        if not self.here.firing:
            self.check()

    def check(self) -> None:
        """Name the first layer in which a hook put NaN or infinity; waits for the device once.

        Raises:
            ValueError: what some hook made is not finite.
        """
        unchecked, self.unchecked = self.unchecked, []
        tests = [(point, x.sum(dtype=torch.float32).isfinite()) for point, x in unchecked]
        if self.latest is not None and self.latest.length is not None:  # steps may be compiled
            tests += [(point, ~point.flag) for point in self.flagged.values()]
        if not tests:
            return
        finite = torch.stack([test.to(tests[0][1].device) for _, test in tests])
        if not bool(finite.all()):
            point = tests[int(finite.int().argmin())][0]
            for flagged in self.flagged.values():
                flagged.flag.zero_()
            where, _, _ = (point.name or "").rpartition(".attn.")
            place = f"the attention of {where}.attn" if where else str(point.name)
            shown = "scores, pattern and z" if where else "numbers"
            raise ValueError(
                f"{place} is not finite after its hooks: expected finite {shown}; look for a division "
                "by zero or an overflow in the hooks on this layer."
            )
