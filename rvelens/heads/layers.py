"""Layers in the notation of users: "14-31", "3,5,7-9", "auto" or "preset"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rvelens.files.arguments import refuse_wrong_types

if TYPE_CHECKING:
    from rvelens.heads.profile import ARSProfile

# Published layers are of LLaVA-1.5-7B's 32, counted from 0; the paper's public code enhances 14-31.
PUBLISHED_DEPTH = 32
# The default of --layer-heads-config:
# https://github.com/LandHqzx/ARS-RVE/blob/8067247577c58ace5ac68ccc85806e012fbb3f60/Rel_hallucination_llava_MMRel.py
PRESET = 14, 31
_PART = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


@refuse_wrong_types
def parse_layers(
    spec: str,
    profile: ARSProfile | None,
    n_layers: int,
    attention_layers: Iterable[int] | None = None,
) -> list[int]:
    """Layer numbers, ascending and without repetition, counted from 0.

    Args:
        spec: numbers and inclusive ranges ("14-31", "3,5,7-9"); "auto", the layers whose mean ARS is
            at least the model's; or "preset", the published choice scaled to this model's depth.
        profile: needed only for "auto".
        n_layers: the number of layers of the model.
        attention_layers: the layers that have attention; by default those of the profile, else all.

    Raises:
        ValueError: another notation, a layer that the model lacks, or "auto" without scores.
    """
    spec = spec.strip()
    if attention_layers is None and profile is not None:
        attention_layers = profile.attention_layers
    if spec == "auto":
        return _auto(profile, n_layers)
    if spec == "preset":
        return with_attention(scaled_layers(*PRESET, n_layers), attention_layers)
    layers: set[int] = set()
    for part in spec.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"layers {spec!r}: expected numbers and ranges such as '14-31' or '3,5,7-9', 'auto' or "
                f"'preset'; correct {part.strip()!r}."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(
                f"layers {spec!r}: the range {part.strip()!r} runs backwards: expected the smaller "
                "number first; swap the two."
            )
        if last >= n_layers:
            raise ValueError(
                f"layers {spec!r}: expected layers from 0 to {n_layers - 1}; correct {last}."
            )
        layers.update(range(first, last + 1))
    return check_attention(sorted(layers), attention_layers)


def with_attention(layers: list[int], attention_layers: Iterable[int] | None) -> list[int]:
    """The given layers that have attention; if none has, the nearest layer that has.

    Args:
        layers: layers of a hybrid decoder, ascending.
        attention_layers: the layers with attention; None for all.
    """
    if attention_layers is None:
        return layers
    having = sorted(attention_layers)
    middle = layers[len(layers) // 2]
    nearest = min(having, key=lambda layer: abs(layer - middle))
    return [layer for layer in layers if layer in having] or [nearest]


def check_attention(layers: list[int], attention_layers: Iterable[int] | None) -> list[int]:
    """Return the layers unchanged; raises ValueError if one of them has no attention."""
    if attention_layers is not None:
        having = sorted(attention_layers)
        without = [layer for layer in layers if layer not in having]
        if without:
            raise ValueError(
                f"layers {format_layers(without)} have no attention: expected layers among "
                f"{format_layers(having)}; choose from these."
            )
    return layers


def _auto(profile: ARSProfile | None, n_layers: int) -> list[int]:
    if profile is None:
        raise ValueError(
            "layers 'auto' without a profile: expected one with scores; measure it with "
            "`rvelens scan` or score_heads, or name the layers."
        )
    if profile.n_layers != n_layers:
        raise ValueError(
            f"layers 'auto' from a profile of {profile.n_layers} layers for a model of {n_layers}: "
            "expected a profile of this model; measure one with `rvelens scan`."
        )
    return profile.auto_layers()


@refuse_wrong_types
def format_layers(layers: Iterable[int]) -> str:
    """Layers in the notation of `parse_layers`, with runs as ranges: "3,5,7-9"."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


@refuse_wrong_types
def scaled_layers(first: int, last: int, n_layers: int) -> list[int]:
    """Layers `first` to `last` (both included) of 32, at the same relative depth of `n_layers`.

    At least one layer, also in very shallow models.
    """
    start, stop = (round(edge / PUBLISHED_DEPTH * n_layers) for edge in (first, last + 1))
    # The first layers are left alone in a shallow model too, where they are in a deep one.
    start = min(max(start, int(first > 0)), n_layers - 1)
    return list(range(start, max(stop, start + 1)))


@refuse_wrong_types
def contiguous_bands(n_layers: int, step: int = 1) -> list[list[int]]:
    """Every band of adjacent layers; with a step, only bands that begin and end at multiples of it.

    Each band begins at a multiple of `step`, and ends just before one or at the last layer. For 32
    layers there are 528 bands with step 1, and 36 with step 4.

    Raises:
        ValueError: a step below 1.
    """
    if step < 1:
        raise ValueError(f"band_step={step}: expected at least 1; 1 takes every band.")
    edges = [*range(0, n_layers, step), n_layers]
    return [list(range(a, b)) for n, a in enumerate(edges) for b in edges[n + 1 :]]


@refuse_wrong_types
def chosen_layers(
    layers: Iterable[int] | None,
    first: int,
    last: int,
    n_layers: int,
    attention_layers: Iterable[int] | None = None,
) -> list[int]:
    """The given layers in order; if none are given, those of `scaled_layers`.

    Raises:
        ValueError: no layer, a layer that a model of `n_layers` lacks, or one without attention.
    """
    if layers is None:
        return with_attention(scaled_layers(first, last, n_layers), attention_layers)
    return check_attention(sorted_layers(layers, n_layers), attention_layers)


@refuse_wrong_types
def sorted_layers(layers: Iterable[int], n_layers: int) -> list[int]:
    """The layers in order, without repetition.

    Raises:
        ValueError: no layer, or one that a model of `n_layers` lacks.
    """
    layers = sorted(set(layers))
    outside = [layer for layer in layers if not 0 <= layer < n_layers]
    if outside or not layers:
        raise ValueError(
            f"layers {outside or layers} for a model of {n_layers} layers: expected layers from 0 "
            f"to {n_layers - 1}; choose at least one of them."
        )
    return layers
