"""Next tokens under settings that edit only the last row, with a replay if this is exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rvelens.model.hook_root import Hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import can_share, prepare_shared
from rvelens.model.prompts import Images
from rvelens.model.replay import MOST_SETTINGS, can_replay, prefill
from rvelens.seam.arguments import ModelInputs


def logits_under(
    model: HookedLVLM,
    images: Images,
    texts: Sequence[str],
    settings: Sequence[Hooks],
    prompt: str = "chat",
) -> Iterator[Float[Tensor, "batch vocab"]]:
    """Logits of the next token under each setting, in addition to the active hooks.

    Settings share one prefill under three conditions: the family's prompts can be run in parts
    (`Family.replays`), no hooks are active, and each hook gets the same tensors as in `generate`.
    Otherwise each setting runs in a whole forward. Both give the same numbers, up to float rounding.

    Args:
        model: the hooked model.
        images, texts, prompt: as in `model.prepare`; one batch.
        settings: the hooks of each; [] is the plain model.
    """
    replays = model.family.replays and not model.list_hooks()
    if not (replays and all(can_replay(model, hooks) for hooks in settings)):
        return _whole(model, model.prepare(images, texts, prompt), settings)
    return _replayed(model, images, texts, settings, prompt)


def _whole(
    model: HookedLVLM, inputs: ModelInputs, settings: Sequence[Hooks]
) -> Iterator[Float[Tensor, "batch vocab"]]:
    for hooks in settings:
        with torch.no_grad(), model.hooks(hooks):
            logits = model(**inputs, logits_to_keep=1)[:, -1]
        yield logits


def _replayed(
    model: HookedLVLM, images: Images, texts: Sequence[str], settings: Sequence[Hooks], prompt: str
) -> Iterator[Float[Tensor, "batch vocab"]]:
    prepare = prepare_shared if can_share(model, prompt) else HookedLVLM.prepare
    prefix = prefill(model, prepare(model, images, texts, prompt))
    for start in range(0, len(settings), MOST_SETTINGS):
        yield from prefix.replay_each(settings[start : start + MOST_SETTINGS]).unbind(dim=1)
