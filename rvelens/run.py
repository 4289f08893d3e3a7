"""The forward in progress: which rows are opened, and the token map that goes with the cache."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from rvelens.tokens import TokenMap

QueryRows = Literal["last", "all"]


@dataclass(frozen=True)
class Outer:
    """A forward that has begun, and what the run knew before it."""

    thread: int
    frame: FrameType | None
    known: tuple[Any, ...]

    def running(self) -> bool:
        """False once it ended without a word, as Ctrl-C ends it."""
        if self.frame is None:
            return False
        try:
            self.frame.clear()
        except RuntimeError:  # a frame that is executing cannot be cleared
            return True
        return False


@dataclass
class Run:
    """What the layers of one model share during a forward.

    Attributes:
        query_rows: "last" opens the row of each sample's last real token, "all" opens every row.
        tokens: the token map of this forward; None if the prompt is unknown.
        row: index of the last real token on the query axis; None where it is the final row for all.
        context_level: how many `hooks` contexts are open, in all wrappers of the model together.
        sums: one number per opened layer, NaN if a hook put NaN or infinity into its rows.
        begun: forwards in progress; several where a hook starts another one.

    A cache whose samples are put in another order (`cache.reorder_cache` across prompts) keeps its
    old map: reorder it with `HookedLVLM.pick_samples`.
    """

    query_rows: QueryRows = "last"
    tokens: TokenMap | None = None
    row: Int[Tensor, " batch"] | None = None
    context_level: int = 0
    sums: list[tuple[HookPoint, Tensor]] = field(default_factory=list)
    begun: list[Outer] = field(default_factory=list, repr=False)
    _announced: threading.local = field(default_factory=threading.local, repr=False)
    _by_cache: WeakKeyDictionary[Any, TokenMap] = field(
        default_factory=WeakKeyDictionary, repr=False
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "query_rows" and value not in get_args(QueryRows):
            raise ValueError(
                f"query_rows is {value!r}: expected 'last' or 'all'; pass one of them."
            )
        super().__setattr__(name, value)

    def remember(self, cache: Any, tokens: TokenMap) -> None:
        """Say what a cache that was filled or copied elsewhere holds."""
        self._by_cache[cache] = tokens

    def map_of(self, cache: Any) -> TokenMap | None:
        """What a cache holds, if a forward that was followed filled it."""
        return self._by_cache.get(cache)

    def announce(self, image_token_id: int, kwargs: Mapping[str, Any]) -> None:
        """Note the roles of the tokens that the coming forward adds, from the model's inputs."""
        self.forget_announced()
        input_ids = kwargs.get("input_ids")
        if input_ids is None:
            return
        mask = kwargs.get("attention_mask")
        mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        # Read only when a prompt comes in: reading at every decode step would wait for the device.
        self._announced.read = lambda: TokenMap.from_inputs(
            input_ids, image_token_id, None if mask is None else mask[:, -input_ids.shape[1] :]
        )
        self._announced.pixels = any("pixel" in k for k, v in kwargs.items() if v is not None)

    def forget_announced(self) -> None:
        """Drop what was announced: the forward that it was of never came, or has begun."""
        self._announced.read = None

    def begin(self, batch: int, n_query: int, cache: Any) -> None:
        """Settle the token map as the decoder starts on `n_query` rows behind what `cache` holds.

        Raises:
            RuntimeError: the model is running in another thread.
        """
        self._enter()
        announced = getattr(self._announced, "read", None)
        self.forget_announced()
        self.sums, self.row = [], None
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        past = self._by_cache.get(cache) if n_past else None
        new = announced() if announced is not None and (n_past == 0 or n_query > 1) else None
        if new is not None and new.n_keys != n_query:
            new = None
        if new is not None and n_past and not self._announced.pixels:
            # The model may say its image token; behind a prompt only pixels make it an image.
            new = TokenMap.from_masks(torch.zeros_like(new.image), new.real)
        if n_past == 0:
            self.tokens = None if new is None else new.expand(batch)
        elif past is None or batch % past.batch:  # a cache of which samples were picked or dropped
            self.tokens = None
        else:
            past = past.crop(n_past).expand(batch)
            self.tokens = past.extend(n_query) if new is None else past.append(new.expand(batch))
        if self.tokens is not None and n_query > 1:
            row = self.tokens.last - (self.tokens.n_keys - n_query)
            self.row = None if bool((row == n_query - 1).all()) else row

    def _enter(self) -> None:
        self.begun = [forward for forward in self.begun if forward.running()]
        thread = threading.get_ident()
        if any(forward.thread != thread for forward in self.begun):
            raise RuntimeError(
                "a forward starts while another thread runs the same model: expected one forward at a "
                "time, since hooks belong to the model; load the model once a thread, or take a lock."
            )
        self.begun.append(Outer(thread, _torch_frame(), (self.tokens, self.row, self.sums)))

    def mine(self) -> bool:
        """Whether the forward that ends is one that began: another thread's may have been refused."""
        return bool(self.begun) and self.begun[-1].thread == threading.get_ident()

    def leave(self) -> None:
        """The decoder is done or failed: what started it from a hook finds its own state again."""
        ended = self.begun.pop()
        if self.begun:
            self.tokens, self.row, self.sums = ended.known


def _torch_frame() -> FrameType | None:
    """The frame of torch's module call that runs the forward from begin to end."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "torch.nn.modules.module":
        frame = frame.f_back
    return frame


def follow(hf_model: Any, decoder: Any, run: Run) -> None:
    """Let `run` follow every forward of a Hugging Face model, `generate`'s included."""
    image_token_id = int(hf_model.config.image_token_id)
    # Copies of the model take its forward hooks along, and must not disturb its run.
    this_model, this_decoder = weakref.ref(hf_model), weakref.ref(decoder)

    @torch.compiler.disable
    def announce(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not this_model():
            return
        named = {"input_ids": args[0], **kwargs} if args and "input_ids" not in kwargs else kwargs
        run.announce(image_token_id, named)

    @torch.compiler.disable
    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = kwargs.get("inputs_embeds")
        x = x if x is not None else kwargs.get("input_ids", args[0] if args else None)
        if isinstance(x, Tensor) and module is this_decoder():
            run.begin(x.shape[0], x.shape[1], kwargs.get("past_key_values"))

    @torch.compiler.disable
    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is not this_decoder() or not run.mine():
            return
        try:
            cache = getattr(output, "past_key_values", None)
            if cache is not None and run.tokens is not None:
                run.remember(cache, run.tokens)
            if output is not None:  # else it failed, and says so itself
                raise_if_not_finite(run)
        finally:
            run.leave()

    hf_model.register_forward_pre_hook(announce, with_kwargs=True)
    decoder.register_forward_pre_hook(begin, with_kwargs=True)
    decoder.register_forward_hook(end, always_call=True)


def raise_if_not_finite(run: Run) -> None:
    """Name the first layer in which a hook put NaN or infinity; waits for the device once.

    Raises:
        ValueError: some opened row's attention is not finite.
    """
    if not run.sums:
        return
    device = run.sums[0][1].device
    finite = torch.stack([total.to(device) for _, total in run.sums]).isfinite()
    points = [point for point, _ in run.sums]
    run.sums = []
    if not bool(finite.all()):
        layer = (points[int(finite.int().argmin())].name or "").rpartition(".")[0]
        raise ValueError(
            f"the attention of {layer} is not finite after its hooks: expected finite scores, pattern "
            "and z; look for a division by zero or an overflow in the hooks on this layer."
        )
