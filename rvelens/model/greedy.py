"""Greedy decoding of several settings together, as `generate` of transformers does for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

# One token of every setting, [batch setting], to the logits of the next, [batch setting vocab].
Step = Callable[[Tensor], Tensor]

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


def check_greedy(config: transformers.GenerationConfig) -> None:
    """Raise ValueError for a generation configuration that asks for more than greedy decoding."""
    for name, neutral in _NOT_GREEDY.items():
        value = getattr(config, name, None)
        if value not in neutral:
            raise ValueError(
                f"the model's generation configuration has {name}={value!r}: expected plain greedy "
                "decoding to run settings side by side; generate under each setting alone."
            )


class Greedy:
    """Greedy decoding by a model's own generation configuration.

    Args:
        config: gives the end tokens, the tokens that are never generated, and the padding token.
        max_new_tokens: the maximum number of tokens to generate.
        device: the device of the tokens.

    Raises:
        ValueError: a configuration that is not greedy decoding, or no token to generate.
    """

    def __init__(
        self, config: transformers.GenerationConfig, max_new_tokens: int, device: torch.device
    ) -> None:
        check_greedy(config)
        if max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens={max_new_tokens}: expected at least 1; pass a larger number."
            )
        self._most = max_new_tokens
        self._ends, self._never = (
            torch.as_tensor([] if x is None else x, dtype=torch.long, device=device).flatten()
            for x in (config.eos_token_id, config.suppress_tokens)
        )
        filler: Any = config.pad_token_id
        self._filler = int(self._ends[0]) if filler is None and len(self._ends) else filler or 0

    def generate(
        self, step: Step, ids: Int[Tensor, "batch setting"]
    ) -> tuple[Int[Tensor, "batch setting new"], Float[Tensor, "batch setting vocab"]]:
        """The new tokens of every setting, and the logits of the first new token."""
        new: list[Tensor] = []
        first = None
        done = torch.zeros_like(ids, dtype=torch.bool)
        while len(new) < self._most and not bool(done.all()):
            logits = step(ids)
            first = logits if first is None else first
            if len(self._never):
                logits = logits.index_fill(-1, self._never, -torch.inf)
            ids = logits.argmax(dim=-1).masked_fill(done, self._filler)
            done = done | torch.isin(ids, self._ends)
            new.append(ids)
        assert first is not None  # there was at least one step
        return torch.stack(new, dim=-1), first

    def filled_up(
        self, new: Int[Tensor, "batch setting new"], length: int
    ) -> Int[Tensor, "batch setting {length}"]:
        """The tokens, padded at the end."""
        return pad(new, (0, length - new.shape[-1]), value=self._filler)
