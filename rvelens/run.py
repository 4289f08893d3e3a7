"""The forward in progress: which rows are opened, and the token map that goes with the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from rvelens.tokens import TokenMap

QueryRows = Literal["last", "all"]


@dataclass
class Run:
    """What the layers of one model share during a forward.

    Attributes:
        query_rows: "last" opens the row of each sample's last real token, "all" opens every row.
        tokens: the token map of this forward; None if the prompt is unknown.
        row: index of the last real token on the query axis; None where it is the final row for all.
        context_level: how many `hooks` contexts are open, in all wrappers of the model together.
        sums: one number per opened layer, NaN if a hook put NaN or infinity into its rows.
    """

    query_rows: QueryRows = "last"
    tokens: TokenMap | None = None
    row: Int[Tensor, " batch"] | None = None
    context_level: int = 0
    sums: list[tuple[HookPoint, Tensor]] = field(default_factory=list)
    announced: Callable[[], TokenMap] | None = field(default=None, repr=False)
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

    def announce(self, image_token_id: int, kwargs: dict[str, Any]) -> None:
        """Note the roles of the tokens that the coming forward adds, from the model's inputs."""
        input_ids = kwargs.get("input_ids")
        if input_ids is None:
            return
        mask = kwargs.get("attention_mask")
        mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        # Read only when a prompt comes in: reading at every decode step would wait for the device.
        self.announced = lambda: TokenMap.from_inputs(
            input_ids, image_token_id, None if mask is None else mask[:, -input_ids.shape[1] :]
        )

    def begin(self, batch: int, n_query: int, cache: Any) -> None:
        """Settle the token map as the decoder starts on `n_query` rows behind what `cache` holds."""
        announced, self.announced, self.sums, self.row = self.announced, None, [], None
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        past = self._by_cache.get(cache) if n_past else None
        new = announced() if announced is not None and (n_past == 0 or n_query > 1) else None
        if new is not None and new.n_keys != n_query:
            new = None
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


def follow(hf_model: Any, decoder: Any, run: Run) -> None:
    """Let `run` follow every forward of a Hugging Face model, `generate`'s included."""
    image_token_id = int(hf_model.config.image_token_id)

    @torch.compiler.disable
    def announce(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {"input_ids": args[0], **kwargs} if args and "input_ids" not in kwargs else kwargs
        run.announce(image_token_id, named)

    @torch.compiler.disable
    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = kwargs.get("inputs_embeds")
        x = x if x is not None else kwargs.get("input_ids", args[0] if args else None)
        if isinstance(x, Tensor):
            run.begin(x.shape[0], x.shape[1], kwargs.get("past_key_values"))

    @torch.compiler.disable
    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        if cache is not None and run.tokens is not None:
            run.remember(cache, run.tokens)
        raise_if_not_finite(run)

    hf_model.register_forward_pre_hook(announce, with_kwargs=True)
    decoder.register_forward_pre_hook(begin, with_kwargs=True)
    decoder.register_forward_hook(end)


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
        layer = (points[int(finite.int().argmin())].name or "").removesuffix(".hook_attn_scores")
        raise ValueError(
            f"the attention of {layer} is not finite after its hooks: expected finite scores and "
            "pattern; look for a division by zero or an overflow in the hooks on this layer."
        )
