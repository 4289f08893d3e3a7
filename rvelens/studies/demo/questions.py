"""Questions prefilled once, to be answered under any number of settings by last-token replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rvelens.benchmarks.action_scenes import Question
from rvelens.hooks import ars_caching_hooks
from rvelens.model.hook_root import Hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.replay import MOST_SETTINGS, Prefix, prefill
from rvelens.model.yes_no import yes_margin
from rvelens.speed.clock import Tracker

# Hooks are a function of the batch's regions, so that the oracle can be given the ground truth.
RegionHooks = Callable[[Bool[Tensor, "batch image"]], Hooks]


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions of one split with their prefilled batches.

    Attributes:
        truth: whether yes is right.
        group: "PC-yes", "PC-no", "CP-yes" or "CP-no".
        cluster: seed of the scene, which is resampled as one.
        region: image tokens of the ground-truth region where the verb must be looked for.
        prefixes: the prefilled batches, in order.
    """

    model: HookedLVLM
    truth: Bool[np.ndarray, " question"]
    group: np.ndarray
    cluster: Int[np.ndarray, " question"]
    region: Bool[Tensor, "question image"]
    prefixes: Sequence[Prefix]

    def margins(self, hooks_of: RegionHooks = lambda region: []) -> Float[np.ndarray, " question"]:
        """Log-odds of yes over no for every question under one setting; by default the plain model."""
        parts = []
        for prefix, region in zip(self.prefixes, self._regions(), strict=True):
            with self.model.hooks(hooks_of(region)):
                parts.append(yes_margin(prefix.replay(), self.model.processor))
        return torch.cat(parts).double().cpu().numpy()

    def margins_each(
        self, settings: Sequence[RegionHooks], progress: Tracker = iter
    ) -> Float[np.ndarray, "setting question"]:
        """`margins` under every setting, `ROWS` of them a replay."""
        parts = []
        for prefix, region in progress(list(zip(self.prefixes, self._regions(), strict=True))):
            hooks = [hooks_of(region) for hooks_of in settings]
            logits = [
                prefix.replay_each(hooks[start : start + MOST_SETTINGS])
                for start in range(0, len(hooks), MOST_SETTINGS)
            ]
            by_setting = torch.cat(logits, dim=1).transpose(0, 1)
            parts.append(torch.stack([yes_margin(x, self.model.processor) for x in by_setting]))
        return torch.cat(parts, dim=1).double().cpu().numpy()

    def attention(
        self, hooks_of: RegionHooks = lambda region: []
    ) -> Float[Tensor, "question layer head image"]:
        """Last-token attention to the image tokens, post-softmax, by default without any edit."""
        parts = []
        layers = self.model.attention_layers
        for prefix, region in zip(self.prefixes, self._regions(), strict=True):
            cache: dict[int, Tensor] = {}
            with self.model.hooks([*hooks_of(region), *ars_caching_hooks(layers, cache)]):
                prefix.replay()
            parts.append(torch.stack([cache[layer].cpu() for layer in layers], dim=1))
        return torch.cat(parts)

    def _regions(self) -> tuple[Tensor, ...]:
        sizes = [len(prefix.last["input_ids"]) for prefix in self.prefixes]
        return self.region.split(sizes)


def prefill_questions(
    model: HookedLVLM, questions: Sequence[Question], batch_size: int, progress: Tracker
) -> QuestionSet:
    """Prefill every question up to its last token.

    Raises:
        ValueError: the model's image tokens have no place in the image.
    """
    starts = range(0, len(questions), batch_size)
    batches = [questions[start : start + batch_size] for start in starts]
    prefixes = [
        prefill(model, model.prepare([q.image for q in batch], [q.text for q in batch]))
        for batch in progress(batches)
    ]
    return QuestionSet(
        model=model,
        truth=np.array([q.answer for q in questions]),
        group=np.array([q.group for q in questions]),
        cluster=np.array([q.scene_seed for q in questions]),
        region=torch.stack([_verb_region(model, q) for q in questions]),
        prefixes=prefixes,
    )


def _verb_region(model: HookedLVLM, question: Question) -> Bool[Tensor, " image"]:
    grid = model.image_grid(question.image)
    if grid is None or len(grid.tiles) != 1:
        raise ValueError(
            f"{model.name} has no single patch grid: expected a model whose image tokens tile the "
            "image; choose another model."
        )
    inside = grid.tokens_in(question.regions["verb"], question.image.size)
    return torch.as_tensor(inside)
