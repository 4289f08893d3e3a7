"""InstructBLIP: a Q-Former reads the image into 32 queries that have no place in it."""

from __future__ import annotations

from typing import Any

from rvelens.families.base import CORE_CHECKS, Family


def _refuse(config: Any) -> str | None:
    """Only the Vicuna (Llama) decoders; the flan-T5 ones cross-attend from another stack."""
    text_config = config.get_text_config()
    if text_config.is_encoder_decoder:
        return (
            f"its language model {text_config.model_type} (flan-T5) is an encoder-decoder: "
            "scores carry a position bias and no decoder row attends to image tokens directly"
        )
    if text_config.model_type != "llama":
        return f"its language model is {text_config.model_type}, only Vicuna's llama is supported"
    return None


FAMILY = Family(
    name="instructblip",
    model_types=("instructblip",),
    # The processor puts the image tokens before the text.
    image_text="",
    prompts={
        "chat": "{image}{question}",
        "short_answer": "{image}Question: {question} Short answer:",
    },
    # The paper, Section 4: alpha is 0.05 for LLaVA and ShareGPT4V, and 0.5 for InstructBLIP.
    alpha=0.5,
    refuse=_refuse,
    note="Vicuna 7B and 13B; 32 queries, no patch grid; flan-T5 is refused",
    verified=CORE_CHECKS,
)
