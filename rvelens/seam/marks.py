"""Which tokens are visual, as the model itself marks them.

A Hugging Face model puts its image and video features in the place of some tokens of the prompt. One
of its own methods says which: `get_placeholder_mask`, in a few families `inputs_merger`. `watch_marks`
notes what that method returns. So an image counts wherever the model puts it: in a first prompt,
behind a cache, among embeddings, from pixels or from features that were computed before. A token that
has the number of an image token, but no image behind it, is text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from rvelens.seam.forward import Run
from rvelens.seam.wrapping import has_method, wrap_method

_MERGES = ("get_placeholder_mask", "inputs_merger")
# Names by which configurations call the tokens that stand for images and video frames.
_IDS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")


def visual_ids(config: Any) -> tuple[int, ...]:
    """Token ids that stand for image or video features in `input_ids`."""
    ids = (getattr(config, name, None) for name in _IDS)
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))


def has_visual_inputs(arguments: Mapping[str, Any]) -> bool:
    """Whether images or videos are among a forward's arguments, as pixels or as features of them."""
    kinds = ("pixel", "image", "video", "vision", "mm_encoder")
    names = [name for name, x in arguments.items() if _is_given(x)]
    return any(kind in name for name in names for kind in kinds)


def _is_given(x: Any) -> bool:
    """Whether an argument holds anything; {} and None hold nothing."""
    if isinstance(x, Tensor | np.ndarray):
        return True
    return len(x) > 0 if isinstance(x, Sized) else bool(x)


def watch_marks(hf_model: Any, run: Run) -> list[nn.Module]:
    """Let `run` know what the model marks as visual tokens; the modules that have methods which do."""
    ids = visual_ids(hf_model.config)
    owners = list(_owners(hf_model))
    for module, name in owners:
        wrap_method(module, name, Merge(name, run, ids))
    return [module for module, _ in owners]


def _owners(hf_model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in hf_model.modules():
        for name in _MERGES:
            if has_method(module, name):
                yield module, name


@dataclass(frozen=True, eq=False)
class Merge:
    """Runs around the method that says where visual features go, and notes what it says."""

    name: str
    run: Run
    ids: tuple[int, ...]

    def __call__(
        self,
        module: Any,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What the method returns."""
        result = method(*args, **kwargs)
        if self.run.is_idle():
            return result
        arguments = inspect.signature(method).bind(*args, **kwargs)
        arguments.apply_defaults()
        if self.name == "get_placeholder_mask":
            placed = self.run.here.coming.has_visual is not False
            visual = _visual_of_masks(result, arguments.arguments, self.ids, placed)
        else:
            visual = _visual_of_inputs(arguments.arguments, self.ids, module)
        if visual is not None:
            coming = self.run.here.coming
            before = coming.visual  # images come before videos
            coming.visual = visual if before is None else before | visual
        return result


def _visual_of_masks(
    result: Any, arguments: Mapping[str, Any], ids: tuple[int, ...], placed: bool
) -> Bool[Tensor, "batch key"] | None:
    """The masks of features that were given, audio excepted, as one.

    Masks come in the order of the features among the method's parameters, else as image, video,
    audio. A method with a parameter for the token is asked about one kind of token at a time. A method
    without parameters for features is asked in every forward, also where nothing is `placed`.
    """
    token = arguments.get("token_id", arguments.get("placeholder_token_id"))
    if token is not None and int(token) not in ids:
        return None
    features = [name for name in arguments if name.endswith("_features")]
    kinds = [name.removesuffix("_features") for name in features]
    kinds += ("image", "video", "audio")[len(kinds) :]
    visual = None
    for kind, mask in zip(kinds, result if isinstance(result, tuple) else (result,), strict=False):
        name = f"{kind}_features"
        is_present = arguments[name] is not None if name in features else placed
        if mask is None or kind == "audio" or not is_present:
            continue
        mask = mask.bool().any(dim=-1) if mask.dim() == 3 else mask.bool()
        visual = mask if visual is None else visual | mask
    return visual


def _visual_of_inputs(
    arguments: Mapping[str, Any], ids: tuple[int, ...], module: Any
) -> Bool[Tensor, "batch key"]:
    """Where the ids are those of visual tokens, or the embeddings theirs."""
    input_ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if input_ids is not None:
        return torch.isin(input_ids, input_ids.new_tensor(ids))
    assert embeds is not None
    marks = module.get_input_embeddings()(torch.tensor(ids, device=embeds.device))
    return (embeds[:, :, None] == marks).all(dim=-1).any(dim=-1)
