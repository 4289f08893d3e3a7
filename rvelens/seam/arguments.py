"""Arguments of a forward, checked before transformers swallows the ones that it does not know."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from torch import nn

# What the forward of a Hugging Face model takes by name, as `HookedLVLM.prepare` returns it.
ModelInputs = Mapping[str, Any]
# The keyword arguments of one call, as torch passes them to a module's hooks.
Keywords = dict[str, Any]

# Arguments of TransformerLens' forward, and of transformers' that change what is returned.
_NOT_HERE = {
    "start_at_layer": "a HookedLVLM runs from the embeddings on; hook hook_resid_pre of that layer",
    "output_attentions": "a HookedLVLM returns logits; run_with_cache returns every hook_pattern",
    "output_hidden_states": "a HookedLVLM returns logits; call model.hf_model for hidden states",
}

# Decoders whose layers take their rows from hidden states, mask and positions, given by these names.
# Settings share rows in them alone, and patterns are computed behind a generation in them alone; the
# tests compare both with each forward alone.
SHARING = frozenset({"LlamaModel", "MistralModel", "Qwen2Model"})


def check_arguments(names: frozenset[str], model: str, kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError for keyword arguments of a forward that would have no effect.

    Args:
        names: arguments of the model's forward, from `known_arguments`.
        model: its class, for the message.
        kwargs: keyword arguments for it.
    """
    for name, value in kwargs.items():
        if name in _NOT_HERE and value is not None and value is not False:
            raise TypeError(
                f"{name}={value!r} has no effect, since {_NOT_HERE[name]}: expected no such "
                "argument; leave it out."
            )
    for name in kwargs.keys() - names - _NOT_HERE.keys():
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise TypeError(
            f"unknown argument {name!r}: expected arguments of {model}.forward; did you mean {near!r}?"
        )


def name_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a call by name; those that its signature takes as `*args` are left out.

    Args:
        function: a method, or a module, whose `forward` tells the names. Adapters of PEFT that take
            `*args` hand them to the model below.
    """
    if not args:
        return dict(kwargs)
    module = function if isinstance(function, nn.Module) else None
    parameters = inspect.signature(function if module is None else module.forward).parameters
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in parameters.items() if parameter.kind in by_place]
    base = getattr(module, "get_base_model", None)
    if not names and base is not None:
        return name_arguments(base(), args, kwargs)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def known_arguments(hf_model: nn.Module) -> frozenset[str]:
    """What the forwards of a model and of its parts take; arguments pass through all of them."""
    from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
    from transformers.utils.generic import TransformersKwargs

    names = {"return_dict", "use_cache", "past_key_values"}
    names |= set(TransformersKwargs.__annotations__) | set(FlashAttentionKwargs.__annotations__)
    kinds = {type(m) for m in hf_model.modules() if isinstance(m, transformers.PreTrainedModel)}
    for kind in kinds:
        names |= set(inspect.signature(kind.forward).parameters)
    return frozenset(names - {"self", "args", "kwargs"})
