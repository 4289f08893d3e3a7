"""Last-token replay: everything before the last token once, the last token under each setting.

RVE and every other edit of the last row alone leave what comes before it untouched, so any number
of settings share one prefill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from rvelens.model import HookedLVLM

# Inputs with one entry per key; the others (pixel values, image sizes) go with the prefix whole.
_PER_KEY = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")

# Families for which the tests verify that a replay equals a whole forward. Others have prompts in
# which every token sees the last one, positions that depend on the whole prompt, layers that forget
# old keys, or a forward that wants its pixels each time.
REPLAYS = ("llava", "llava_next", "sharegpt4v", "llava_onevision", "internvl", "idefics3")


@dataclass(frozen=True, eq=False)
class Prefix:
    """A batch of prompts, prefilled up to the last token.

    Attributes:
        model: the model that was prefilled.
        cache: keys and values of all but the last token; each replay leaves it as it was.
        last: the last token of each prompt and what goes with it, [batch 1], and the full mask.
    """

    model: HookedLVLM
    cache: Cache
    last: Mapping[str, Int[Tensor, "batch _"]]

    @torch.no_grad()
    def replay(self) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, with the hooks that are on now at work on the last row.

        Equal, up to float rounding, to a whole forward under the same hooks if these edit nothing
        but the last row (RVE, dilution, regions); a hook that edits earlier rows (head masks)
        changes the last one only.
        """
        n_past = self.cache.get_seq_length()
        try:
            logits = self.model(**self.last, past_key_values=self.cache, use_cache=True)
        finally:
            _cut_back(self.cache, n_past)
        return logits[:, -1]


def _cut_back(cache: Cache, n_keys: int) -> None:
    """Drop what a replay added, layer by layer: one that failed midway grew only some layers."""
    layer: Any  # not every kind of cache layer can be cut back; attention layers can
    for layer in cache.layers:
        added = int(layer.get_seq_length()) - n_keys
        if added > 0:
            layer.crop(-added)


@torch.no_grad()
def prefill(model: HookedLVLM, inputs: Mapping[str, Any]) -> Prefix:
    """Run all but the last token of a left-padded batch, without hooks in between.

    Args:
        model: the hooked model, without hooks that are on.
        inputs: what `model.prepare` returned.

    Raises:
        ValueError: a prompt that ends in padding, hooks that are on, or a family whose last token
            cannot be replayed alone.
    """
    if model.family.name not in REPLAYS:
        raise ValueError(
            f"the last token of {model.family.name} cannot be replayed alone: expected one of "
            f"{', '.join(REPLAYS)}; run whole forwards."
        )
    mask = inputs["attention_mask"]
    if not bool(mask[:, -1].all()):
        raise ValueError(
            "some prompts end in padding: expected a left-padded batch; make it with model.prepare."
        )
    if model.list_hooks(including_permanent=False):
        raise ValueError(
            "hooks are on during prefill: expected none, since every setting shares the prefix; "
            "turn them on around replay."
        )
    first = {k: v[:, :-1] if k in _PER_KEY else v for k, v in inputs.items()}
    output = model.hf_model(**first, use_cache=True, logits_to_keep=1)
    last = {k: inputs[k][:, -1:] for k in _PER_KEY if k in inputs}
    return Prefix(model, output.past_key_values, {**last, "attention_mask": mask})
