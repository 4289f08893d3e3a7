"""The model under check, its prompts, and what checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from rvelens.check.outcome import Tolerance, apart
from rvelens.heads.profile import ARSProfile
from rvelens.hooks import rve_hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import PER_KEY
from rvelens.seam import look_up
from rvelens.seam.arguments import ModelInputs
from rvelens.seam.call import Call
from rvelens.seam.marks import visual_ids

# Of unequal length, so that a batch of them has padding.
QUESTIONS = (
    "Is there a person in this image?",
    "Does a man hold a surfboard, and is there direct contact between the two in this image?",
    "Is it red?",
)
# Two generated tokens behind the first show that a cache is read as the prompt is.
NEW_TOKENS = 4

# What happens in the place of a layer's attention: (hook points, call) to z and weights.
Attend = Callable[[Any, Call], tuple[Tensor, Any]]


@dataclass
class Subject:
    """A wrapped model and the prompts that it is checked with.

    Attributes:
        model: the wrapped model.
        inputs: a prompt without padding, or the tensors that were given.
        image: the picture of the prompt; None where tensors were given.
        question: the question of the prompt.
        plain: logits and generation of the model before it was wrapped.
    """

    model: HookedLVLM
    inputs: ModelInputs
    image: Image.Image | None
    question: str
    plain: Mapping[str, Tensor | Exception] = field(default_factory=dict)

    @cached_property
    def tolerance(self) -> Tolerance:
        """The limits of the model's dtype."""
        return Tolerance.of(self.model.hf_model.dtype)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers whose scores and pattern can be hooked."""
        seam, decoder = self.model._seam, self.model.hf_model.get_decoder()
        names = {n: f"blocks.{n}.attn.hook_attn_scores" for n in self.model.attention_layers}
        return tuple(n for n, name in names.items() if seam.reason(decoder, name) is None)

    @cached_property
    def batch(self) -> ModelInputs:
        """Prompts of unequal length, left-padded; the given tensors without a processor."""
        if self.image is None:
            return self.inputs
        return dict(self.model.prepare(self.image, self.questions))

    @property
    def questions(self) -> list[str]:
        """The questions of `batch`."""
        return [self.question, *QUESTIONS[1:]]

    @cached_property
    def profile(self) -> ARSProfile:
        """A profile of random scores."""
        model, generator = self.model, torch.Generator().manual_seed(0)
        scores = torch.rand(model.n_layers, model.n_heads, generator=generator)
        return ARSProfile.from_scores(scores, attention_layers=model.attention_layers)

    @property
    def k(self) -> int:
        """Heads that make a mask; 0 where a layer has too few."""
        return min(5, self.model.n_heads // 2)

    def rve(self) -> list[tuple[str, Any]]:
        """RVE in every layer that can be hooked, with the family's alpha."""
        alpha = self.model.family.alpha
        return list(rve_hooks(self.profile, self.layers, k=self.k, alpha=alpha))

    def image_keys(self, inputs: ModelInputs) -> Bool[Tensor, "batch key"]:
        """Which tokens of a prompt are visual, by their ids alone."""
        ids = inputs["input_ids"]
        return torch.isin(ids, ids.new_tensor(visual_ids(self.model.hf_model.config)))

    @torch.no_grad()
    def logits(self, inputs: ModelInputs) -> Float[Tensor, "batch query vocab"]:
        """Logits of a forward under the hooks that are on."""
        return self.model(**inputs)

    def generate(self, inputs: ModelInputs, n_new: int = NEW_TOKENS, **options: Any) -> Any:
        """Exactly `n_new` greedy tokens, none of them visual, with logits and cache."""
        never = list(visual_ids(self.model.hf_model.config))
        how = {
            "max_new_tokens": n_new,
            "min_new_tokens": n_new,
            "do_sample": False,
            "num_beams": 1,
            "suppress_tokens": never,
            "return_dict_in_generate": True,
            "output_logits": True,
        }
        return self.model.generate(**inputs, **{**how, **options})

    def first_logits(self, inputs: ModelInputs) -> Float[Tensor, "batch vocab"]:
        """Logits that predict the first generated token; generate counts no padding."""
        return self.generate(inputs, 1).logits[0]

    @cached_property
    def is_causal(self) -> bool:
        """Whether another last token leaves the rows before it as they were."""
        return self.moved_by_last_token <= self.tolerance.whole

    @cached_property
    def moved_by_last_token(self) -> float:
        """How far another last token moves the logits of the rows before it."""
        ids = self.inputs["input_ids"]
        text = ids[0][~self.image_keys(self.inputs)[0]]
        other = ids.clone()
        other[:, -1] = torch.where(ids[:, -1] == text[-2], text[0], text[-2])
        changed = {**self.inputs, "input_ids": other}
        return apart(self.logits(changed)[:, :-1], self.logits(self.inputs)[:, :-1])

    @contextmanager
    def looking(self, function: Attend) -> Iterator[None]:
        """Run `function` in the place of each layer's attention."""
        modules = self.model._seam.modules
        hooks = {layer: look_up.hooks_of(modules[layer]) for layer in self.layers}
        try:
            for layer in self.layers:
                look_up.attach(modules[layer], Looking(hooks[layer], function))
            yield
        finally:
            for layer in self.layers:
                look_up.attach(modules[layer], hooks[layer])


@dataclass(eq=False)
class Looking:
    """Stands in for the hook points of a layer, and lets them run."""

    hooks: Any
    function: Attend
    in_use = True

    def attend(self, call: Call) -> tuple[Tensor, Any]:
        """What `function` makes of the call."""
        return self.function(self.hooks, call)


def longer(
    inputs: ModelInputs, new: Int[Tensor, "batch new"], *, prefix_model: bool = False
) -> dict[str, Any]:
    """A prompt with tokens of text behind it.

    Args:
        inputs: the prompt.
        new: ids of the tokens.
        prefix_model: type ids of 1 mark what comes behind the prefix, as in PaliGemma.
    """
    whole = dict(inputs)
    fills = {"attention_mask": 1, "token_type_ids": int(prefix_model), "mm_token_type_ids": 0}
    whole["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
    for name, fill in fills.items():
        if name in inputs:
            added = torch.full_like(new, fill, dtype=inputs[name].dtype)
            whole[name] = torch.cat([inputs[name], added], dim=1)
    return whole


def left_padded(inputs: ModelInputs, n: int, pad_id: int) -> dict[str, Any]:
    """A batch with `n` tokens of padding before each prompt."""
    padded = dict(inputs)
    ids = inputs["input_ids"]
    padded.setdefault("attention_mask", torch.ones_like(ids))
    for name in PER_KEY:
        if name in padded:
            x = padded[name]
            value = pad_id if name == "input_ids" else 0
            padded[name] = torch.cat([torch.full_like(x[:, :n], value), x], dim=1)
    return padded


def listed(layers: Sequence[int]) -> str:
    """Layers for a sentence: the first five."""
    shown = ", ".join(map(str, layers[:5]))
    return f"{shown} and {len(layers) - 5} more" if len(layers) > 5 else shown
