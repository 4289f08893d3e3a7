"""Ways to generate in which hooks would see the wrong rows, or a cache does not go with its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn

from rvelens.seam.arguments import ModelInputs, name_arguments
from rvelens.seam.wrapping import has_method, wrap_method

# Options of generate under which a step has more rows than the one that hooks see.
_SEVERAL_ROWS = (
    "assistant_model",
    "assistant_early_exit",
    "use_mtp",
    "prompt_lookup_num_tokens",
    "prefill_chunk_size",
)


def check_prompt(hf_model: transformers.PreTrainedModel, inputs: ModelInputs) -> None:
    """Raise ValueError for a cache that does not go with the prompt of a generation.

    Args:
        hf_model: the model; its own generation configuration counts too.
        inputs: arguments of generate.
    """
    _check_cache_of_prompt(inputs, _options(hf_model, inputs))


def _options(hf_model: Any, inputs: ModelInputs) -> list[Mapping[str, Any]]:
    """Where generate reads its options: arguments, a configuration among them, the model's own."""
    configs = (inputs.get("generation_config"), getattr(hf_model, "generation_config", None))
    return [inputs, *(vars(c) for c in configs if isinstance(c, transformers.GenerationConfig))]


def guard_generate(hf_model: nn.Module, has_hooks: Callable[[], bool]) -> None:
    """Let every `generate` of a model and its parts refuse, under hooks, steps of several rows."""
    for module in hf_model.modules():
        if has_method(module, "generate"):
            wrap_method(module, "generate", GuardedGenerate(has_hooks))


@dataclass(frozen=True, eq=False)
class GuardedGenerate:
    """Runs around `generate`; refuses what hooks would see wrongly while some are on."""

    has_hooks: Callable[[], bool]

    def __call__(
        self,
        module: Any,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What the method returns.

        Raises:
            ValueError: a way of decoding that runs several rows a step, with hooks on.
        """
        if self.has_hooks():
            _check_rows(module, name_arguments(method, args, kwargs))
        return method(*args, **kwargs)


def _check_rows(hf_model: Any, inputs: ModelInputs) -> None:
    several = several_rows(hf_model, inputs)
    if several:
        raise ValueError(
            f"{several[0]} runs several rows in a step, and hooks see only the last one: expected "
            "one token per step; leave it out, or turn the hooks off."
        )


def several_rows(hf_model: Any, inputs: ModelInputs) -> list[str]:
    """Options of a generation under which a step has several rows.

    Args:
        hf_model: the model; its own generation configuration counts too.
        inputs: arguments of generate.
    """
    options = _options(hf_model, inputs)
    values = [(n, x.get(n)) for n in _SEVERAL_ROWS for x in options]
    several = [n for n, value in values if value is not None and value is not False]
    return several + (
        ["use_cache=False"] if any(x.get("use_cache") is False for x in options) else []
    )


def check_behind_cache(n_past: int, n_new: int, n_mask: int) -> None:
    """Raise ValueError where tokens that a cache holds are given again to a plain forward."""
    if n_past + n_new != n_mask:
        raise ValueError(
            f"a cache of {n_past} tokens, {n_new} tokens and a mask of {n_mask}: expected only the "
            "tokens behind the cache, and a mask over all; cut input_ids and position_ids, or "
            "generate."
        )


def _check_cache_of_prompt(inputs: ModelInputs, configurations: list[Mapping[str, Any]]) -> None:
    """A cache that is handed to generate holds less than the prompt, and is of as many rows."""
    cache, ids = inputs.get("past_key_values"), inputs.get("input_ids")
    n_past = int(cache.get_seq_length()) if cache is not None else 0
    if not n_past or ids is None:
        return
    if n_past >= ids.shape[1]:
        raise ValueError(
            f"a cache of {n_past} tokens for a prompt of {ids.shape[1]}: expected a cache that "
            "holds only its beginning; prepare the prompt again for each generation."
        )
    many = [
        n
        for n in ("num_beams", "num_return_sequences")
        if any((x.get(n) or 1) > 1 for x in configurations)
    ]
    if many or any(x.get("use_cache") is False for x in configurations):
        raise ValueError(
            f"{many[0] if many else 'use_cache=False'} with a filled cache: expected greedy "
            "decoding or sampling of one sequence per prompt; make the inputs with model.prepare."
        )
