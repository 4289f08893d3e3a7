"""Yes or no, read from the model's next token."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_SPELLINGS = {"yes": ("Yes", " Yes", "yes", " yes", "YES"), "no": ("No", " No", "no", " no", "NO")}


def yes_no_ids(processor: Any) -> tuple[list[int], list[int]]:
    """Token ids that mean yes and no as the first token: the one-token spellings of each.

    Raises:
        ValueError: the tokenizer has no single token for one of the answers.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = {}
    for answer, spellings in _SPELLINGS.items():
        pieces = [tokenizer.encode(text, add_special_tokens=False) for text in spellings]
        # SentencePiece splits off a lone space, so a leading-space spelling may take two tokens.
        ids[answer] = sorted({p[0] for p in pieces if len(p) == 1} - {tokenizer.unk_token_id})
        if not ids[answer]:
            raise ValueError(
                f"the tokenizer has no single token for {answer!r}: expected one of "
                f"{', '.join(map(repr, spellings))}; score this model by its generated text."
            )
    return ids["yes"], ids["no"]


def yes_and_no(processor: Any) -> tuple[int, int]:
    """One token for yes and one for no, in the same spelling.

    Raises:
        ValueError: there is no spelling with a single token for both.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    yes, no = yes_no_ids(processor)
    for both in zip(*_SPELLINGS.values(), strict=True):
        first, second = (tokenizer.encode(text, add_special_tokens=False)[0] for text in both)
        if first in yes and second in no:
            return first, second
    raise ValueError(
        "the tokenizer has no spelling with a single token for both yes and no: expected one, such as "
        "'Yes' and 'No'; name two tokens yourself."
    )


def yes_no_probabilities(
    logits: Float[Tensor, "batch vocab"], processor: Any
) -> Float[Tensor, "batch 2"]:
    """Probability that the next token is yes, and that it is no (the rest is neither)."""
    yes, no = yes_no_ids(processor)
    probabilities = logits.float().softmax(dim=-1)
    return torch.stack([probabilities[:, yes].sum(-1), probabilities[:, no].sum(-1)], dim=-1)


def yes_margin(logits: Float[Tensor, "batch vocab"], processor: Any) -> Float[Tensor, " batch"]:
    """Log-odds of yes over no at the next token; above 0 the answer is yes."""
    yes, no = yes_no_ids(processor)
    logits = logits.float()
    return logits[:, yes].logsumexp(-1) - logits[:, no].logsumexp(-1)
