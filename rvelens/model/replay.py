"""The prompt up to its last token, computed once for any number of settings.

RVE, like every edit of only the last row, does not change the rows before it. So a batch is prefilled
once. Each setting then runs only the last token and the tokens generated after it.

In a replay, a hook gets the same rows, keys and token map as in `generate`. Hooks that declare
`row_local` use only the last row and its image tokens. Settings with only such hooks run in one
forward, each as one query row over the same keys. Settings with other hooks run one after the other. A
hook that needs every row of the prompt cannot be replayed, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor

from rvelens.hooks.declared import is_row_local
from rvelens.hooks.names import KEYED
from rvelens.model.filling import fill, roomy_cache
from rvelens.model.greedy import Greedy, Step, check_greedy
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import PER_KEY, check_replays, positions
from rvelens.model.side_by_side import Hooks, SideBySide, groups_of, merge_groups, points_of
from rvelens.seam.arguments import ModelInputs
from rvelens.seam.hook_point import name_of
from rvelens.tokens.carried import carried_map, carry_map
from rvelens.tokens.token_map import TokenMap

# Settings that run in one forward; each is a query row behind the prompt.
MOST_SETTINGS = 32

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Prefix:
    """A batch of prompts, prefilled up to the last token.

    Attributes:
        model: the model that was prefilled.
        cache: keys and values of all tokens except the last. A replay does not change it.
        last: the inputs of the last token of each prompt, by key.
        mask: which tokens of the prompts are not padding, including the last token.
        tokens: the token map of the whole prompts, as in the first forward of `generate`.
    """

    model: HookedLVLM
    cache: transformers.Cache
    last: Mapping[str, Int[Tensor, "batch 1"]]
    mask: Int[Tensor, "batch key"]
    tokens: TokenMap

    @property
    def batch(self) -> int:
        """The number of prompts in the batch."""
        return self.mask.shape[0]

    @torch.no_grad()
    def replay(self) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, with the active hooks on the last row.

        They equal those of a whole forward under the same hooks, up to float rounding.

        Raises:
            ValueError: a hook that needs every row of the prompt, because only the last row runs.
        """
        points: Any = self.model.hook_points()
        hooks = [(str(point.name), h.user_hook) for point in points for h in point.fwd_hooks]
        check_replayable(self.model, hooks)
        with self._restoring_cache():
            return self._alone()(self.last["input_ids"])[:, -1]

    def replay_each(self, settings: Sequence[Hooks]) -> Float[Tensor, "batch setting vocab"]:
        """Logits of the next token under each setting.

        They equal those of `replay` inside `model.hooks(setting)`, up to float rounding.

        Args:
            settings: the hooks of each setting; [] is the plain model.

        Raises:
            ValueError: no settings, active hooks, or a hook that cannot be replayed.
        """
        return merge_groups(self._under_each(settings, lambda step, ids: step(ids)))

    def generate_each(
        self, settings: Sequence[Hooks], max_new_tokens: int = 16
    ) -> tuple[Int[Tensor, "batch setting new"], Float[Tensor, "batch setting vocab"]]:
        """Greedy generations under each setting.

        Args:
            settings: as in `replay_each`; the hooks run at every step.
            max_new_tokens: tokens to generate at most.

        Returns:
            the new tokens, padded after an end token, and the logits of the first new token.

        Raises:
            ValueError: an error of `replay_each`, or a model whose generation configuration is not
                greedy decoding.
        """
        config: Any = self.model.hf_model.generation_config
        greedy = Greedy(config, max_new_tokens, self.mask.device)
        groups = self._under_each(settings, greedy.generate)
        longest = max(new.shape[-1] for _, (new, _) in groups)
        ids = [(group, greedy.filled_up(new, longest)) for group, (new, _) in groups]
        return merge_groups(ids), merge_groups([(group, first) for group, (_, first) in groups])

    @torch.no_grad()
    def _under_each(
        self, settings: Sequence[Hooks], run: Callable[[Step, Tensor], _Result]
    ) -> list[tuple[list[int], _Result]]:
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
        for group in groups_of(self.model, settings):
            if len(group) > 1:
                with self._branches([settings[n] for n in group]) as step:
                    results.append((group, run(step, ids.expand(-1, len(group)))))
            else:
                with self._restoring_cache(), self.model.hooks(settings[group[0]]):
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
        before, position = self.model.query_rows, positions(self.mask)[:, -1:]
        rows = SideBySide(self.model, settings, self.mask[:, :-1].bool())

        def step(ids: Int[Tensor, "batch setting"]) -> Float[Tensor, "batch setting vocab"]:
            nonlocal position
            ids, mask = rows.place(ids)
            others = {k: v.expand_as(ids) for k, v in self.last.items() if k != "input_ids"}
            logits = self.model(
                input_ids=ids, **others, attention_mask=mask, position_ids=position.expand_as(ids),
                past_key_values=self.cache, use_cache=True,
            )  # fmt: skip
            position = position + 1
            return rows.of_settings(logits)

        try:
            self.model.query_rows = "all"
            with self._restoring_cache(), self.model.hooks(rows.hooks()), rows.widening():
                yield step
        finally:
            self.model.query_rows = before

    @contextmanager
    def _restoring_cache(self) -> Iterator[None]:
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


def check_replayable(model: HookedLVLM, hooks: Hooks) -> None:
    """Raise ValueError for a hook that gets less in a replay than in `generate`.

    In `generate`, hooks get every row of the prompt at all points, except scores and pattern under
    `query_rows="last"`. A replay runs only the last row, after the image. Row-local hooks get their
    rows of scores, pattern and z.
    """
    for point, hook in points_of(model, hooks):
        if point not in model.hook_dict:
            continue  # refused where it is put on
        if point.startswith("vision.") or point == "hook_image_features":
            raise ValueError(
                f"{name_of(hook)} on {point} runs while the image is read, and a replay runs after "
                "that: expected hooks on points of the decoder; run whole forwards."
            )
        rows = point.endswith(KEYED)
        local = is_row_local(hook) and (rows or point.endswith("hook_z"))
        shown = rows and model.query_rows == "last"
        if not (local or shown):
            raise ValueError(
                f"{name_of(hook)} on {point} sees every row of a prompt, and a replay runs only the "
                "last one: expected hooks on scores or pattern of the last row; run whole forwards."
            )


def can_replay(model: HookedLVLM, hooks: Hooks) -> bool:
    """Whether these hooks get the same tensors in a replay as in `generate`."""
    try:
        check_replayable(model, hooks)
    except ValueError:
        return False
    return True


@torch.no_grad()
def prefill(model: HookedLVLM, inputs: ModelInputs) -> Prefix:
    """Run all tokens of a left-padded batch except the last, without hooks.

    Args:
        model: the hooked model, without active hooks.
        inputs: the result of `model.prepare` or `prepare_shared`. The cache of the latter cannot be
            used again.

    Raises:
        ValueError: a prompt that ends in padding, active hooks, or a family whose last token cannot be
            replayed.
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
    """Whether `generate_each` gives the same result as `generate` under each setting."""
    try:
        check_greedy(model.hf_model.generation_config)  # type: ignore[arg-type]  # never None here
    except ValueError:
        return False
    return model.family.replays
