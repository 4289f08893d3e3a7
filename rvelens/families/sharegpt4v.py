"""ShareGPT4V: LLaVA's architecture, trained on other captions, with a conversation of its own."""

from __future__ import annotations

from typing import Any

from rvelens.families import llava
from rvelens.families.base import ALL_CHECKS, Family

# The model derives from LLaVA's code and conversation; that "chat" is the prompt of its own
# evaluation was not confirmed from its source: pass prompt= where you know better.
_CHAT = llava.SYSTEM + " USER: {image}\n{question} ASSISTANT:"


def is_named_so(config: Any) -> bool:
    """Whether a LLaVA configuration was loaded from a folder or hub name of ShareGPT4V weights."""
    name = str(getattr(config, "name_or_path", ""))
    return config.model_type == "llava" and "sharegpt4v" in name.lower()


FAMILY = Family(
    name="sharegpt4v",
    model_types=(),
    prompts={"chat": _CHAT, "llava_v1": llava.LLAVA_V1},
    grid=llava.llava_grid,
    note=(
        "weights converted to transformers' LLaVA; chosen by family='sharegpt4v' or by the model's "
        "name. The original checkpoints (model type share4v) do not load."
    ),
    replays=True,
    verified=ALL_CHECKS,
)
