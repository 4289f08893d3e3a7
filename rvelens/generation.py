"""Ways to generate in which hooks would see the wrong rows, or a cache does not go with its prompt."""

from __future__ import annotations

from typing import Any

import transformers

# Options of generate under which a step has more rows than the one that hooks see.
_SEVERAL_ROWS = ("assistant_model", "prompt_lookup_num_tokens", "prefill_chunk_size")


def check_options(
    hf_model: transformers.PreTrainedModel, inputs: dict[str, Any], hooked: bool
) -> None:
    """Raise ValueError for arguments of generate that it would not carry out as asked.

    Args:
        hf_model: the model; its own generation configuration counts too.
        inputs: arguments of generate.
        hooked: whether hooks are on.
    """
    configs = (inputs.get("generation_config"), hf_model.generation_config)
    asked = [inputs, *(vars(c) for c in configs if isinstance(c, transformers.GenerationConfig))]
    _check_cache_of_prompt(inputs, asked)
    several = [n for n in _SEVERAL_ROWS if any(x.get(n) is not None for x in asked)]
    several += ["use_cache=False"] if any(x.get("use_cache") is False for x in asked) else []
    if several and hooked:
        raise ValueError(
            f"{several[0]} runs several rows at a step and hooks see the last one only: expected "
            "one token a step; leave it out, or take the hooks off."
        )


def check_behind_cache(n_past: int, n_new: int, n_mask: int) -> None:
    """Raise ValueError where tokens that a cache holds are given again to a plain forward."""
    if n_past + n_new != n_mask:
        raise ValueError(
            f"a cache of {n_past} tokens, {n_new} tokens and a mask of {n_mask}: expected the tokens "
            "behind the cache alone and a mask over all; cut input_ids and position_ids, or generate."
        )


def _check_cache_of_prompt(inputs: dict[str, Any], asked: list[dict[str, Any]]) -> None:
    """A cache that is handed to generate holds less than the prompt, and is of as many rows."""
    cache, ids = inputs.get("past_key_values"), inputs.get("input_ids")
    n_past = int(cache.get_seq_length()) if cache is not None else 0
    if not n_past or ids is None:
        return
    if n_past >= ids.shape[1]:
        raise ValueError(
            f"a cache of {n_past} tokens for a prompt of {ids.shape[1]}: expected one that holds only "
            "its beginning; prepare the prompt again for each generation."
        )
    many = [
        n for n in ("num_beams", "num_return_sequences") if any((x.get(n) or 1) > 1 for x in asked)
    ]
    if many or any(x.get("use_cache") is False for x in asked):
        raise ValueError(
            f"{many[0] if many else 'use_cache=False'} with a cache that is filled already: expected "
            "greedy decoding or sampling of one sequence a prompt; make the inputs with model.prepare."
        )
