"""Selects hook points by patterns, and the rows of each question in their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from rvelens.files.wording import counted
from rvelens.heads.layers import sorted_layers
from rvelens.hooks.names import KEYED
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.tokens.token_map import TokenMap

ROW_CHOICES = ("last", "all")
# Numbers as the model computes them, or rounded.
DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Below it a score is of a key that the mask hides; above it no score is as low.
_HIDDEN = -1e30


def matching_points(
    model: HookedLVLM, patterns: Sequence[str], layers: Iterable[int] | None = None
) -> list[str]:
    """The hook points that match patterns, in the order of the model.

    Args:
        model: the hooked model.
        patterns: names with shell wildcards `*` and `?`. A pattern matches a full name
            ("blocks.3.hook_resid_post", "hook_embed"), a point in every layer ("hook_resid_post",
            "attn.hook_*"), or a short name of TransformerLens' caches ("pattern", "resid_post").
        layers: the layers, for points in layers; None for all.

    Raises:
        ValueError: a layer that the model lacks, a pattern without a match, or a point of the vision
            tower or the image features.
    """
    chosen = None if layers is None else set(sorted_layers(layers, model.n_layers))
    matches: set[str] = set()
    for pattern in patterns:
        names = [name for name in model.hook_dict if _matches(name, pattern, chosen)]
        if not names:
            raise ValueError(
                f"points {pattern!r} match none of the "
                f"{counted(len(model.hook_dict), 'hook point')} in these "
                "layers: expected names such as hook_resid_post or attn.hook_pattern; correct the "
                "pattern or the layers."
            )
        matches.update(names)
    for name in matches:
        if name.startswith("vision.") or name == "hook_image_features":
            raise ValueError(
                f"{name} has rows of images and not of questions: expected points of the decoder; take "
                "model.run_with_cache for it."
            )
    return [name for name in model.hook_dict if name in matches]


def _matches(name: str, pattern: str, layers: set[int] | None) -> bool:
    parts = name.split(".", 2)
    if parts[0] != "blocks":
        in_tower = pattern.startswith("*") and "vision" in name
        return name == f"hook_{pattern}" or (fnmatchcase(name, pattern) and not in_tower)
    in_layers = layers is None or int(parts[1]) in layers
    is_short = parts[2].rpartition(".")[2] in (pattern, f"hook_{pattern}")
    return in_layers and (is_short or fnmatchcase(name, pattern) or fnmatchcase(parts[2], pattern))


def rows_of_sample(
    name: str, x: Shaped[Tensor, "*any"], tokens: TokenMap, sample: int, rows: str
) -> Shaped[Tensor, "*own"]:
    """The part of a point's tensor that belongs to one question, without padding.

    Args:
        name: the name of the point.
        x: [batch head query key] for scores and pattern, [batch row ...] for other points.
        tokens: the token map of the batch.
        sample: the question's number in the batch.
        rows: "last" or "all".

    Returns:
        for scores and pattern [head key] or [head query key], for other points [...] or [row ...].

    Raises:
        ValueError: a tensor with another number of rows than the prompt.
    """
    own, own_rows = x[sample], tokens.real[sample].nonzero().flatten().to(x.device)
    axis = 1 if name.endswith(KEYED) else 0
    shown = 1 if axis and rows == "last" else tokens.n_keys
    if own.shape[axis] != shown or (axis and own.shape[2] != tokens.n_keys):
        raise ValueError(
            f"{name} shows {tuple(x.shape)} of a prompt of {tokens.n_keys} tokens: expected a row for "
            "each of them; take model.run_with_cache for it."
        )
    if axis:
        own = own[:, :, own_rows]
        return own[:, 0] if rows == "last" else own[:, own_rows]
    return own[int(tokens.last[sample])] if rows == "last" else own[own_rows]


def rounded(
    name: str, x: Shaped[Tensor, "*own"], dtype: torch.dtype | None
) -> Shaped[Tensor, "*own"]:
    """A tensor in another precision, on the CPU.

    Raises:
        ValueError: a finite number that this precision cannot represent.
    """
    x = x.detach().cpu()
    if dtype is None or dtype == x.dtype:
        return x.contiguous().clone()
    y = x.to(dtype)
    lost = x.isfinite() & ~y.isfinite() & (x > _HIDDEN)
    if bool(lost.any()):
        raise ValueError(
            f"{name} holds {float(x[lost].abs().max()):.3g}, which {dtype} cannot: expected a wider "
            "precision; store bfloat16 or float32."
        )
    return y.contiguous()


def token_tensors(
    input_ids: Int[Tensor, "batch key"], tokens: TokenMap, sample: int
) -> dict[str, Shaped[Tensor, " own"]]:
    """The tokens of one question without padding, and which of them are image tokens."""
    real = tokens.real[sample].cpu()
    return {
        "input_ids": input_ids[sample].cpu()[real].contiguous(),
        "is_image": tokens.image[sample].cpu()[real].contiguous(),
    }
