"""The file of a head profile: its tensors, and how they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from torch import Tensor

from rvelens.files.stored import Digest, Stored


class ProfileAbout(Stored):
    """The record in a profile's file of how it was measured."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    dtype: str | None = None
    weights: Digest | None = None
    score: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    n_pairs: Annotated[int, Field(ge=1)] | None = None
    versions: dict[str, str] | None = None


def check_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a profile's tensors are not those that ARSProfile.save writes."""
    ranking, shape = tensors["ranking"], tuple(tensors["ranking"].shape)
    ranks = ranking.dim() == 2 and ranking.dtype == torch.int64 and ranking.numel() > 0
    if not ranks or not torch.equal(
        ranking.sort(dim=1).values, torch.arange(shape[1]).expand(*shape)
    ):
        raise ValueError(
            f"{path} does not rank heads: expected each row of `ranking` to hold every head once; "
            "measure the profile again."
        )
    for name, n_axes in (("mean", 2), ("per_pair", 3)):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        fits = tensor.dim() == n_axes and tuple(tensor.shape[-2:]) == shape and tensor.numel() > 0
        if not fits or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{path}: `{name}` is {tensor.dtype} of shape {tuple(tensor.shape)}, or not finite: "
                f"expected finite real numbers of {n_axes} axes, the last two {shape}; measure the "
                "profile again."
            )
    layers = tensors.get("attention_layers", torch.tensor([], dtype=torch.int64))
    numbers = layers.dim() == 1 and layers.dtype == torch.int64
    if not numbers or not set(layers.tolist()) <= set(range(shape[0])):
        raise ValueError(
            f"{path}: attention_layers {layers.tolist()} of {shape[0]} layers: expected numbers of "
            "its layers; measure the profile again."
        )
    if "mean" in tensors and not _is_order_of(ranking, tensors["mean"]):
        raise ValueError(
            f"{path}: its ranking is not the order of its scores: expected both from one "
            "measurement; measure the profile again."
        )


def _is_order_of(ranking: Int[Tensor, "layer head"], mean: Float[Tensor, "layer head"]) -> bool:
    """Whether scores do not rise along the ranking."""
    ordered = mean.gather(1, ranking)
    return bool((ordered[:, 1:] <= ordered[:, :-1]).all())
