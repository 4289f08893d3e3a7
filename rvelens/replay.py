"""The prompt up to its last token, run once for any number of settings.

RVE and every other edit of the last row alone leave what comes before it untouched. So a batch is
prefilled once, and only the last token, and what is generated behind it, is run under each setting:
one after the other (`Prefix.replay`), or all in one forward (`replay_each`, `generate_each`), in which
the settings are as many query rows behind the same keys, each blind to the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import transformers
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from rvelens.attention import returned
from rvelens.model import HookedLVLM
from rvelens.prefix import PER_KEY, check_replays, positions
from rvelens.tokens import tokens_of

# Settings that run in one forward; each is a query row behind the prompt.
ROWS = 32

Hooks = Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]]

# What a generation configuration may ask for that greedy decoding alone does not do, and the values
# that ask for nothing.
_NOT_GREEDY: Mapping[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1, 1.0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "guidance_scale": (None, 1, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    **dict.fromkeys(
        (
            "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias",
            "begin_suppress_tokens", "exponential_decay_length_penalty", "stop_strings",
            "watermarking_config", "max_time",
        ),
        (None,),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prefix:
    """A batch of prompts, prefilled up to the last token.

    Attributes:
        model: the model that was prefilled.
        cache: keys and values of all but the last token; each replay leaves it as it was.
        last: the last token of each prompt and what goes with it by key.
        mask: which tokens of the prompts are no padding, the last one included.
    """

    model: HookedLVLM
    cache: transformers.Cache
    last: Mapping[str, Int[Tensor, "batch 1"]]
    mask: Int[Tensor, "batch key"]

    @property
    def batch(self) -> int:
        """Prompts in the batch."""
        return self.mask.shape[0]

    @torch.no_grad()
    def replay(self) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, with the hooks that are on now at work on the last row.

        Equal, up to float rounding, to a whole forward under the same hooks if these edit nothing
        but the last row (RVE, dilution, regions); a hook that edits earlier rows (head masks)
        changes the last one only.
        """
        with self._kept():
            logits = self.model(
                **self.last,
                attention_mask=self.mask,
                position_ids=positions(self.mask)[:, -1:],
                past_key_values=self.cache,
                use_cache=True,
            )
        return logits[:, -1]

    def replay_each(self, settings: Sequence[Hooks]) -> Float[Tensor, "batch setting vocab"]:
        """Logits of the next token under each setting, in one forward.

        Equal, up to float rounding, to `replay` inside `model.hooks(setting)` for each of them.

        Args:
            settings: the hooks of each; [] is the plain model. A hook is given its setting's row
                alone (`query` is 1), with the other settings' keys masked.

        Raises:
            ValueError: no settings, or hooks that are on already.
        """
        with self._branches(settings) as step:
            return step(self.last["input_ids"].expand(-1, len(settings)))

    def generate_each(
        self, settings: Sequence[Hooks], max_new_tokens: int = 16
    ) -> tuple[Int[Tensor, "batch setting new"], Float[Tensor, "batch setting vocab"]]:
        """Greedy generations under each setting, one forward a token for all of them.

        Args:
            settings: as in `replay_each`; each one's hooks are at work at every step.
            max_new_tokens: tokens to generate at most.

        Returns:
            the new tokens, filled up behind an end token, and the logits of the first one.

        Raises:
            ValueError: as `replay_each`; or a model whose own generation configuration asks for
                more than greedy decoding.
        """
        config: Any = self.model.hf_model.generation_config
        check_greedy(config)
        ends, never = (
            torch.as_tensor(
                [] if x is None else x, dtype=torch.long, device=self.mask.device
            ).flatten()
            for x in (config.eos_token_id, config.suppress_tokens)
        )
        filler = config.pad_token_id
        if filler is None:
            filler = int(ends[0]) if len(ends) else 0
        ids = self.last["input_ids"].expand(-1, len(settings))
        done = torch.zeros_like(ids, dtype=torch.bool)
        new: list[Tensor] = []
        first: Tensor | None = None
        with self._branches(settings) as step:
            while len(new) < max_new_tokens and not bool(done.all()):
                logits = step(ids)
                first = logits if first is None else first
                ids = logits.index_fill(-1, never, -torch.inf).argmax(dim=-1)
                ids = ids.masked_fill(done, filler)
                done = done | torch.isin(ids, ends)
                new.append(ids)
        if first is None:
            raise ValueError(f"max_new_tokens={max_new_tokens}: expected at least 1.")
        return torch.stack(new, dim=-1), first

    @contextmanager
    def _branches(self, settings: Sequence[Hooks]) -> Iterator[Callable[[Tensor], Tensor]]:
        """One step of every setting at once: tokens [batch setting] to logits [batch setting vocab]."""
        if not settings:
            raise ValueError(
                "no settings: expected at least one list of hooks; [] is the plain model."
            )
        if self.model.list_hooks():
            raise ValueError(
                "hooks are on, and each setting has its own: expected none; put them into the settings."
            )
        n, before = len(settings), self.model.query_rows
        # Of keys behind the prompt a row sees its own: every n-th.
        own = torch.eye(n, dtype=torch.bool, device=self.mask.device)
        seen = repeat(self.mask[:, :-1].bool(), "batch key -> batch 1 row key", row=n)
        position = repeat(positions(self.mask)[:, -1], "batch -> batch row", row=n)
        others = {k: v.expand(-1, n) for k, v in self.last.items() if k != "input_ids"}

        @torch.no_grad()
        def step(ids: Int[Tensor, "batch setting"]) -> Float[Tensor, "batch setting vocab"]:
            nonlocal seen, position
            seen = torch.cat([seen, own.expand(self.batch, 1, n, n)], dim=-1)
            logits = self.model(
                input_ids=ids, **others, attention_mask=seen, position_ids=position,
                past_key_values=self.cache, use_cache=True,
            )  # fmt: skip
            position = position + 1
            return logits

        hooks = _by_point(self.model, settings)
        try:
            self.model.query_rows = "all"
            with self._kept(), self.model.hooks(hooks):
                yield step
        finally:
            self.model.query_rows = before

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Drop what is added to the cache, layer by layer: a forward that failed grew only some."""
        n_keys = self.cache.get_seq_length()
        try:
            yield
        finally:
            layer: Any  # not every kind of cache layer can be cut back; attention layers can
            for layer in self.cache.layers:
                added = int(layer.get_seq_length()) - n_keys
                if added > 0:
                    layer.crop(-added)


@dataclass(frozen=True, eq=False)
class EachRow:
    """The settings' own hooks at one hook point, each on its setting's row as if it were alone.

    Hooks that say what makes them `alike` run `side_by_side`, since calling hundreds of them one by
    one would take longer than the model.
    """

    axis: int
    by_row: dict[int, list[Callable[..., Any]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, x: Float[Tensor, "*any"], hook: Any) -> Float[Tensor, "*any"]:
        """What each row's hooks make of it."""
        x = x.clone()
        for rows in self._groups:
            hooks = self.by_row[rows[0]]
            if len(rows) > 1:
                some: Any = [self.by_row[row][0] for row in rows]
                # A slice where that is possible: picking rows out of a large tensor copies them.
                beside = rows == list(range(rows[0], rows[-1] + 1))
                at = slice(rows[0], rows[-1] + 1) if beside else rows
                x[:, :, at] = some[0].side_by_side(some, x[:, :, at], tokens_of(hook))
                continue
            row = x.narrow(self.axis, rows[0], 1)
            for one in hooks:
                row = returned(hook, one, one(row, hook), row)
            x.narrow(self.axis, rows[0], 1).copy_(row)
        return x

    @cached_property
    def _groups(self) -> list[list[int]]:
        groups: dict[Any, list[int]] = defaultdict(list)
        for row, hooks in self.by_row.items():
            alike = getattr(hooks[0], "alike", None) if len(hooks) == 1 else None
            groups[row if alike is None else (type(hooks[0]), alike)].append(row)
        return list(groups.values())

    def check(self, n_layers: int, n_heads: int) -> None:
        """Raise ValueError where a hook is for a model of another shape."""
        for one in (one for hooks in self.by_row.values() for one in hooks):
            check = getattr(one, "check", None)
            if check is not None:
                check(n_layers, n_heads)


def _by_point(model: HookedLVLM, settings: Sequence[Hooks]) -> list[tuple[str, EachRow]]:
    """All settings' hooks as one hook a point."""
    points: dict[str, EachRow] = {}
    for row, hooks in enumerate(settings):
        for name, one in hooks:
            named = [name] if isinstance(name, str) else list(filter(name, model.hook_dict))
            for point in named:
                axis = 1 if point.endswith("hook_z") else 2
                points.setdefault(point, EachRow(axis)).by_row[row].append(one)
    return list(points.items())


@torch.no_grad()
def prefill(model: HookedLVLM, inputs: Mapping[str, Any]) -> Prefix:
    """Run all but the last token of a left-padded batch, without hooks in between.

    Args:
        model: the hooked model, without hooks that are on.
        inputs: what `model.prepare` or `prepare_shared` returned; the cache of the latter is used up.

    Raises:
        ValueError: a prompt that ends in padding, hooks that are on, or a family whose last token
            cannot be replayed alone.
    """
    check_replays(model)
    mask = inputs["attention_mask"].long()
    if not bool(mask[:, -1].all()):
        raise ValueError(
            "some prompts end in padding: expected a left-padded batch; make it with model.prepare."
        )
    by_key = {k: inputs[k] for k in PER_KEY if k in inputs and k != "attention_mask"}
    cache = inputs.get("past_key_values")
    n_past = 0 if cache is None else int(cache.get_seq_length())
    if n_past < mask.shape[1] - 1:
        per_key = (*PER_KEY, "position_ids")
        output = model.hf_model(
            **{k: v for k, v in inputs.items() if k not in per_key},
            **{k: v[:, n_past:-1] for k, v in by_key.items()},
            attention_mask=mask[:, :-1],
            position_ids=positions(mask)[:, n_past:-1],
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
    assert cache is not None  # else the prompt is one token long, without an image
    return Prefix(model, cache, {k: v[:, -1:] for k, v in by_key.items()}, mask)


def replays_exactly(model: HookedLVLM) -> bool:
    """Whether `generate_each` gives what `generate` gives under each setting alone."""
    try:
        check_greedy(model.hf_model.generation_config)  # type: ignore[arg-type]  # never None here
    except ValueError:
        return False
    return model.family.replays


def check_greedy(config: transformers.GenerationConfig) -> None:
    """Raise ValueError for a generation configuration that asks for more than greedy decoding."""
    for name, neutral in _NOT_GREEDY.items():
        value = getattr(config, name, None)
        if value not in neutral:
            raise ValueError(
                f"the model's generation configuration has {name}={value!r}: expected plain greedy "
                "decoding to run settings side by side; generate under each setting alone."
            )
