"""All families, and which one a model belongs to."""

from __future__ import annotations

import difflib
from typing import Any

from rvelens.families import (
    gemma3,
    idefics3,
    instructblip,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    paligemma,
    qwen2_5_vl,
    qwen3_vl,
    sharegpt4v,
)
from rvelens.families.base import Family

_MODULES = (
    llava,
    llava_next,
    sharegpt4v,
    instructblip,
    llava_onevision,
    qwen2_5_vl,
    qwen3_vl,
    internvl,
    gemma3,
    idefics3,
    paligemma,
)
_REFUSED = {
    "idefics": "its decoder reaches images through cross-attention, so no key is an image token",
    "mllama": "its decoder reaches images through cross-attention, so no key is an image token",
}
# By name; `register` adds one.
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}


def register(family: Family) -> None:
    """Add a family of one's own, to be found by its name and by the configurations it claims.

    It is known until the program ends, to whatever runs in it.

    Raises:
        ValueError: its name, or a configuration that it claims, is another family's.
    """
    taken = [f.name for f in FAMILIES.values() if set(f.model_types) & set(family.model_types)]
    if family.name in FAMILIES or taken:
        clash = f"the name {family.name!r}"
        if family.name not in FAMILIES:
            clash = f"the model types {', '.join(family.model_types)}"
        raise ValueError(
            f"{clash} of a new family: expected what no other family has; choose others, or pass "
            "the family to HookedLVLM.from_pretrained(family=...) instead."
        )
    FAMILIES[family.name] = family


def family_of(model: Any) -> Family:
    """The family of a name or of a Hugging Face configuration.

    A configuration that no family claims gets one of its own without presets and grid, provided it
    names its image token.

    Raises:
        ValueError: an unknown name, or a configuration without image tokens among its keys.
    """
    if isinstance(model, str):
        if model not in FAMILIES:
            near = difflib.get_close_matches(model, FAMILIES, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown family {model!r}: expected one of {', '.join(FAMILIES)}; "
                f"did you mean {near!r}?"
            )
        return FAMILIES[model]
    if sharegpt4v.is_named_so(model):
        return sharegpt4v.FAMILY
    for family in FAMILIES.values():
        if model.model_type in family.model_types:
            return family
    if model.model_type in _REFUSED:
        raise ValueError(
            f"{model.model_type} cannot be hooked: {_REFUSED[model.model_type]}: expected a model "
            "that places image tokens in its prompt; choose one of `rvelens families`."
        )
    if getattr(model, "image_token_id", None) is None:
        raise ValueError(
            f"a {model.model_type} model has no image_token_id in its configuration: expected a "
            "vision-language model that places image tokens in its prompt; it cannot be hooked."
        )
    return Family(model.model_type, (model.model_type,), note="not among the verified families")
