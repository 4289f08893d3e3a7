"""All families, and which one a model belongs to."""

from __future__ import annotations

import difflib
from typing import Any

from rvelens.families import llava
from rvelens.families.base import Family

FAMILIES: dict[str, Family] = {f.name: f for f in (llava.FAMILY,)}


def family_of(model: Any) -> Family:
    """The family of a name or of a Hugging Face configuration.

    A configuration that no family claims gets one of its own without presets and grid, provided it
    names its image token.

    Raises:
        ValueError: an unknown name, or a configuration without image tokens.
    """
    if isinstance(model, str):
        if model not in FAMILIES:
            near = difflib.get_close_matches(model, FAMILIES, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown family {model!r}: expected one of {', '.join(FAMILIES)}; "
                f"did you mean {near!r}?"
            )
        return FAMILIES[model]
    for family in FAMILIES.values():
        if model.model_type in family.model_types:
            return family
    if getattr(model, "image_token_id", None) is None:
        raise ValueError(
            f"a {model.model_type} model has no image_token_id in its configuration: expected a "
            "vision-language model that places image tokens in its prompt; it cannot be hooked."
        )
    return Family(model.model_type, (model.model_type,), note="not among the verified families")
