"""Tokens given by a text or by an id."""

from __future__ import annotations

from collections.abc import Sequence

from rvelens.model.hooked_lvlm import HookedLVLM


def token_ids(model: HookedLVLM, tokens: Sequence[str | int], noun: str) -> list[int]:
    """The ids of tokens that are given by a text or by an id.

    Args:
        model: the hooked model, which has the vocabulary.
        tokens: texts of one token each, or ids.
        noun: the noun for a token in the error message.

    Raises:
        ValueError: a text that is not exactly one token, or an id that the model does not have.
    """
    ids = [
        model.to_single_token(token) if isinstance(token, str) else int(token) for token in tokens
    ]
    n_vocab = model.W_U.shape[1]
    wrong = next((id_ for id_ in ids if not 0 <= id_ < n_vocab), None)
    if wrong is not None:
        raise ValueError(
            f"{noun} {wrong}: expected the id of a token, from 0 to {n_vocab - 1}; correct it."
        )
    return ids
