"""Where hooks meet a Hugging Face model: its text tower is switched to rvelens' attention, once."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import transformers
from torch import nn

from rvelens import attention
from rvelens.attention import AttentionHooks
from rvelens.run import Run, follow

_SEAMS: WeakKeyDictionary[nn.Module, tuple[Run, list[AttentionHooks]]] = WeakKeyDictionary()


def open_seam(hf_model: transformers.PreTrainedModel) -> tuple[Run, list[AttentionHooks]]:
    """Switch the text tower to rvelens' attention; a model wrapped twice shares one set of hooks."""
    if hf_model in _SEAMS:
        # It may have been switched to another implementation since.
        hf_model.set_attn_implementation({"text_config": attention.IMPLEMENTATION})
        return _SEAMS[hf_model]
    attention.register()
    decoder = hf_model.get_decoder()
    modules = [m for m in decoder.modules() if hasattr(m, "layer_idx") and hasattr(m, "o_proj")]
    modules.sort(key=lambda m: int(m.layer_idx))  # type: ignore[arg-type]
    hf_model.set_attn_implementation({"text_config": attention.IMPLEMENTATION})
    if not modules or decoder.config._attn_implementation != attention.IMPLEMENTATION:
        raise ValueError(
            f"{type(hf_model).__name__} does not call its attention through transformers' "
            "AttentionInterface: expected a decoder-only model that does; it cannot be hooked."
        )
    run = Run()
    layers = [AttentionHooks(run) for _ in modules]
    for module, hooks in zip(modules, layers, strict=True):
        attention.listen(module, hooks)
    follow(hf_model, decoder, run)
    _SEAMS[hf_model] = (run, layers)
    return run, layers
