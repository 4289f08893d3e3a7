"""Both texts of contrastive pairs as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rvelens.heads.pair import ContrastivePair
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import can_share, prepare_shared


def both_texts(model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str) -> dict[str, Any]:
    """Inputs of one forward: first all questions, then all contrastive texts.

    Texts about the same image share the forward up to its end, if this is exact and no hooks are
    active. Hooks may edit any row, so they need the whole prompt of each text.
    """
    images = [pair.image for pair in pairs]
    texts = [pair.question for pair in pairs] + [pair.contrastive for pair in pairs]
    if not can_share(model, prompt) or model.list_hooks():
        return dict(model.prepare(images + images, texts, prompt))
    inputs = prepare_shared(model, images + images, texts, prompt)
    n_past = inputs["past_key_values"].get_seq_length()
    return inputs | {name: inputs[name][:, n_past:] for name in ("input_ids", "position_ids")}
