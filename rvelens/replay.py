"""The prompt up to its last token, run once for any number of settings.

RVE and every other edit of the last row alone leave what comes before it untouched. So a batch is
prefilled once, and only the last token, and what is generated behind it, is run under each setting.

A hook sees in a replay what it sees in `generate`: the same rows, keys and token map. Hooks that
declare `row_local` look at the last row and its image tokens only. Settings made of them run in one
forward, each as one query row behind the same keys. Settings with other hooks run one after the other.
A hook that is shown every row of the prompt cannot be replayed, and is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
import transformers
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from rvelens.attention import check_returned, name_of
from rvelens.carried import carried_map, carry_map
from rvelens.filling import fill, roomy_cache
from rvelens.model import HookedLVLM
from rvelens.prefix import PER_KEY, check_replays, positions
from rvelens.tokens import TokenMap, tokens_of

# Settings that run in one forward; each is a query row behind the prompt.
ROWS = 32

Hooks = Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]]
# One token of every setting, [batch setting], to the logits of the next, [batch setting vocab].
Step = Callable[[Tensor], Tensor]
Result = TypeVar("Result")

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
        tokens: the token map of the whole prompts, as the first forward of `generate` has it.
    """

    model: HookedLVLM
    cache: transformers.Cache
    last: Mapping[str, Int[Tensor, "batch 1"]]
    mask: Int[Tensor, "batch key"]
    tokens: TokenMap

    @property
    def batch(self) -> int:
        """Prompts in the batch."""
        return self.mask.shape[0]

    @torch.no_grad()
    def replay(self) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, with the hooks that are on now at work on the last row.

        Equal, up to float rounding, to a whole forward under the same hooks.

        Raises:
            ValueError: a hook that is shown every row of the prompt, of which the last one alone runs.
        """
        points: Any = self.model.hook_points()
        hooks = [(str(point.name), h.user_hook) for point in points for h in point.fwd_hooks]
        check_replayable(self.model, hooks)
        with self._kept():
            return self._alone()(self.last["input_ids"])[:, -1]

    def replay_each(self, settings: Sequence[Hooks]) -> Float[Tensor, "batch setting vocab"]:
        """Logits of the next token under each setting.

        Equal, up to float rounding, to `replay` inside `model.hooks(setting)` for each of them.

        Args:
            settings: the hooks of each; [] is the plain model.

        Raises:
            ValueError: no settings, hooks that are on already, or one that cannot be replayed.
        """
        return _merged(self._under_each(settings, lambda step, ids: step(ids)))

    def generate_each(
        self, settings: Sequence[Hooks], max_new_tokens: int = 16
    ) -> tuple[Int[Tensor, "batch setting new"], Float[Tensor, "batch setting vocab"]]:
        """Greedy generations under each setting.

        Args:
            settings: as in `replay_each`; each one's hooks are at work at every step.
            max_new_tokens: tokens to generate at most.

        Returns:
            the new tokens, filled up behind an end token, and the logits of the first one.

        Raises:
            ValueError: as `replay_each`; or a model whose own generation configuration asks for
                more than greedy decoding.
        """
        check_greedy(self.model.hf_model.generation_config)  # type: ignore[arg-type]
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}: expected at least 1.")
        ends, never, filler = self._special_tokens()

        def generate(step: Step, ids: Int[Tensor, "batch setting"]) -> tuple[Tensor, Tensor]:
            new: list[Tensor] = []
            first = None
            done = torch.zeros_like(ids, dtype=torch.bool)
            while len(new) < max_new_tokens and not bool(done.all()):
                logits = step(ids)
                first = logits if first is None else first
                ids = logits.index_fill(-1, never, -torch.inf).argmax(dim=-1)
                ids = ids.masked_fill(done, filler)
                done = done | torch.isin(ids, ends)
                new.append(ids)
            assert first is not None  # there was at least one step
            return torch.stack(new, dim=-1), first

        groups = self._under_each(settings, generate)
        longest = max(new.shape[-1] for _, (new, _) in groups)
        ids = [
            (group, pad(new, (0, longest - new.shape[-1]), value=filler))
            for group, (new, _) in groups
        ]
        return _merged(ids), _merged([(group, first) for group, (_, first) in groups])

    def _special_tokens(self) -> tuple[Int[Tensor, " end"], Int[Tensor, " never"], int]:
        """Tokens that end a generation, tokens that it never takes, and what fills it up."""
        config: Any = self.model.hf_model.generation_config
        ends, never = (
            torch.as_tensor(
                [] if x is None else x, dtype=torch.long, device=self.mask.device
            ).flatten()
            for x in (config.eos_token_id, config.suppress_tokens)
        )
        filler = config.pad_token_id
        if filler is None:
            filler = int(ends[0]) if len(ends) else 0
        return ends, never, filler

    @torch.no_grad()
    def _under_each(
        self, settings: Sequence[Hooks], run: Callable[[Step, Tensor], Result]
    ) -> list[tuple[list[int], Result]]:
        """What `run` makes of each group of settings: their numbers, and what came of their steps."""
        if not settings:
            raise ValueError(
                "no settings: expected at least one list of hooks; [] is the plain model."
            )
        if self.model.list_hooks():
            raise ValueError(
                "hooks are on, and each setting has its own: expected none; put them into the settings."
            )
        for hooks in settings:
            check_replayable(self.model, hooks)
        ids = self.last["input_ids"]
        results = []
        for group in _groups(settings):
            if len(group) > 1:
                with self._branches([settings[n] for n in group]) as step:
                    results.append((group, run(step, ids.expand(-1, len(group)))))
            else:
                with self._kept(), self.model.hooks(settings[group[0]]):
                    results.append((group, run(self._alone(), ids)))
        return results

    def _alone(self) -> Step:
        """A step of the hooks that are on: tokens [batch 1] to logits [batch 1 vocab]."""
        mask, tokens = self.mask, self.tokens

        def step(ids: Int[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 vocab"]:
            nonlocal mask, tokens
            logits = self.model(
                **{**self.last, "input_ids": ids}, attention_mask=mask,
                position_ids=positions(mask)[:, -1:], past_key_values=self.cache, use_cache=True,
                tokens=tokens,
            )  # fmt: skip
            mask, tokens = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1), None
            return logits

        return step

    @contextmanager
    def _branches(self, settings: Sequence[Hooks]) -> Iterator[Step]:
        """One step of every setting at once: tokens [batch setting] to logits [batch setting vocab]."""
        n, before = len(settings), self.model.query_rows
        # Of keys behind the prompt a row sees its own: every n-th.
        own = torch.eye(n, dtype=torch.bool, device=self.mask.device)
        seen = repeat(self.mask[:, :-1].bool(), "batch key -> batch 1 row key", row=n)
        position = repeat(positions(self.mask)[:, -1], "batch -> batch row", row=n)
        others = {k: v.expand(-1, n) for k, v in self.last.items() if k != "input_ids"}

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
        n_keys, tokens = self.cache.get_seq_length(), carried_map(self.cache)
        try:
            yield
        finally:
            layer: Any  # not every kind of cache layer can be cut back; attention layers can
            for layer in self.cache.layers:
                added = int(layer.get_seq_length()) - n_keys
                if added > 0:
                    layer.crop(-added)
            carry_map(self.cache, tokens)


def is_row_local(hook: Callable[..., Any]) -> bool:
    """Whether a hook's own class declares that it looks at the last row and its image tokens alone.

    A subclass may look at more, so it has to declare it again.
    """
    return bool(vars(type(hook)).get("row_local", False))


def check_replayable(model: HookedLVLM, hooks: Hooks) -> None:
    """Raise ValueError for a hook that sees less in a replay than in `generate`.

    `generate` shows hook_z, and under `query_rows="all"` scores and pattern too, every row of the
    prompt; a replay runs the last one alone.
    """
    for name, hook in hooks:
        points = [name] if isinstance(name, str) else list(filter(name, model.hook_dict))
        for point in points:
            every = model.query_rows == "all" or point.endswith("hook_z")
            if every and point in model.hook_dict and not is_row_local(hook):
                raise ValueError(
                    f"{name_of(hook)} on {point} sees every row of a prompt, and a replay runs only "
                    "the last one: expected hooks on scores or pattern of the last row; run whole "
                    "forwards."
                )


def can_replay(model: HookedLVLM, hooks: Hooks) -> bool:
    """Whether a replay shows these hooks what `generate` shows them."""
    try:
        check_replayable(model, hooks)
    except ValueError:
        return False
    return True


def _groups(settings: Sequence[Hooks]) -> list[list[int]]:
    """Numbers of the settings that run together: those of row-local hooks, and each other one."""
    local = [n for n, hooks in enumerate(settings) if all(is_row_local(hook) for _, hook in hooks)]
    return [*([local] if local else []), *([n] for n in range(len(settings)) if n not in local)]


def _merged(groups: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """[batch setting ...] of all settings, in their order."""
    order = torch.tensor([n for group, _ in groups for n in group])
    return torch.cat([x for _, x in groups], dim=1)[:, order.argsort()]


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
                alike: Any = [self.by_row[row][0] for row in rows]
                # A slice where that is possible: picking rows out of a large tensor copies them.
                adjacent = rows == list(range(rows[0], rows[-1] + 1))
                at = slice(rows[0], rows[-1] + 1) if adjacent else rows
                x[:, :, at] = alike[0].side_by_side(alike, x[:, :, at], tokens_of(hook))
                continue
            row = x.narrow(self.axis, rows[0], 1)
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
        """Raise ValueError where a hook is for a model of another shape."""
        for hook in (hook for hooks in self.by_row.values() for hook in hooks):
            check = getattr(hook, "check", None)
            if check is not None:
                check(n_layers, n_heads)


def _by_point(model: HookedLVLM, settings: Sequence[Hooks]) -> list[tuple[str, EachRow]]:
    """All settings' hooks as one hook a point."""
    points: dict[str, EachRow] = {}
    for row, hooks in enumerate(settings):
        for name, hook in hooks:
            named = [name] if isinstance(name, str) else list(filter(name, model.hook_dict))
            for point in named:
                axis = 1 if point.endswith("hook_z") else 2
                points.setdefault(point, EachRow(axis)).by_row[row].append(hook)
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
        per_key = (*PER_KEY, "position_ids", "past_key_values")
        cache = roomy_cache(model) if cache is None else cache
        fill(
            model,
            cache,
            **{k: v for k, v in inputs.items() if k not in per_key},
            **{k: v[:, n_past:-1] for k, v in by_key.items()},
            attention_mask=mask[:, :-1],
            position_ids=positions(mask)[:, n_past:-1],
        )
    assert cache is not None  # else the prompt is one token long, without an image
    prefilled = carried_map(cache)
    if prefilled is None:  # the cache is not of this package: the ids tell what it holds
        tokens = model.token_map(inputs)
    else:
        last = TokenMap.from_masks(torch.zeros_like(mask[:, -1:]).bool(), mask[:, -1:].bool())
        tokens = prefilled.crop(mask.shape[1] - 1).append(last)
    return Prefix(model, cache, {k: v[:, -1:] for k, v in by_key.items()}, mask, tokens)


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
