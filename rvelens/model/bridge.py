"""rvelens' hooks on TransformerLens' bridge: finds the token map of every forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from rvelens.seam.forward import Run
from rvelens.seam.seam import Seam, follow
from rvelens.seam.stream import Stream
from rvelens.seam.wrapping import ATTRIBUTE
from rvelens.tokens import carried
from rvelens.tokens.token_map import attach_tokens

# Methods of a model in whose place something stands that follows it.
_FOLLOWED = ("generate", "get_placeholder_mask", "inputs_merger", ATTRIBUTE)


@contextmanager
def follow_bridge(bridge: Any) -> Iterator[Any]:
    """A context in which every forward of a `TransformerBridge`, also in `generate`, has a token map.

    It replaces a call of `attach_tokens` before every forward:

        with rvelens.follow_bridge(bridge), bridge.hooks(fwd_hooks=rve_hooks(...)):
            bridge.original_model.generate(**inputs)

    After the block, hook points have no token map.

    Args:
        bridge: a bridge of a vision-language model.

    Raises:
        ValueError: not a bridge of a vision-language model.
    """
    hf_model = getattr(bridge, "original_model", None)
    decoder = getattr(hf_model, "get_decoder", lambda: None)()
    if hf_model is None or not isinstance(decoder, nn.Module):
        raise ValueError(
            f"{type(bridge).__name__} is followed: expected a TransformerBridge of a "
            "vision-language model; a HookedLVLM needs no follow_bridge."
        )
    points = bridge.hook_dict.values()
    run = Run()
    carried.wrap_caches()
    seam = Seam(run, {}, 0, Stream(run, type(decoder).__name__, None), nn.ModuleList())
    before = [
        (module, {n: vars(module).get(n) for n in _FOLLOWED}) for module in hf_model.modules()
    ]
    follow(hf_model, decoder, seam)

    def attach(module: nn.Module, args: Any, kwargs: Any) -> None:
        attach_tokens(points, run.latest)

    seam.handles.append(decoder.register_forward_pre_hook(attach, with_kwargs=True))
    try:
        yield bridge
    finally:
        for handle in seam.handles:
            handle.remove()
        for module, methods in before:
            for name, method in methods.items():
                vars(module).pop(name, None)
                if method is not None:
                    vars(module)[name] = method
        attach_tokens(points, None)
