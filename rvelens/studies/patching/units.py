"""The patches of each pair of runs: two images with one question, or two texts about one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from rvelens.benchmarks import Item
from rvelens.files.atomic import one_line
from rvelens.heads.pair import with_suffix
from rvelens.model.yes_no import yes_and_no
from rvelens.patching import RunPair, pair_runs, patch_attention, patch_heads, patch_tokens
from rvelens.studies.kit.base import Batch, Setup, iterate
from rvelens.studies.kit.pairs import CHUNK
from rvelens.studies.kit.regions import ANSWER_REGION, grid_of
from rvelens.studies.kit.rows import check_read

# Of one pair of runs: the distance of both answers in logits, "gap", and effects by name; or why not.
Unit = dict[str, Any]


def of_images(setup: Setup, items: Sequence[Item]) -> tuple[dict[str, Unit], int]:
    """Effects as the image of each question takes the place of the next photograph's."""
    partners = {item.id: _partner(items, n) for n, item in enumerate(items)}

    answers = yes_and_no(setup.model.processor)

    def compute(batch: Batch) -> list[Unit]:
        units: list[Unit] = []
        for item, image, text in zip(batch.items, batch.images, batch.texts, strict=True):
            try:
                other = partners[item.id].load()
                runs = pair_runs(
                    setup.model, (image, text), (other, text), answers, prompt=setup.decoding.prompt
                )
            except ValueError as error:
                units.append({"refused": one_line(error)})
                continue
            assert item.regions is not None  # check_regions
            boxes = item.regions()[ANSWER_REGION]
            inside = grid_of(setup.model, image).tokens_in(boxes, image.size)
            units.append({**_unit(runs), **_of_sets(runs, inside, setup.seed)})
        return units

    by_item = setup.map_items("images", items, compute)
    check_read(setup, items, by_item)
    compared = {name: unit for name, unit in by_item.items() if "gap" in unit}
    _check_units(list(compared.values()), list(by_item.values()))
    return compared, len(items) - len(compared)


def _partner(items: Sequence[Item], n: int) -> Item:
    """The next question about another photograph."""
    behind = [*items[n + 1 :], *items[:n]]
    for item in behind:
        if item.source != items[n].source:
            return item
    raise ValueError(
        "all questions are about one photograph: expected at least two, to patch one into the other; "
        "take a benchmark with more."
    )


def of_texts(setup: Setup, n: int) -> list[Unit]:
    """Effects as the question of each contrastive pair takes the place of the one with another verb."""
    pairs = with_suffix(setup.pairs[:n], setup.decoding.suffix)

    answers = yes_and_no(setup.model.processor)

    def compute(start: int) -> list[Unit]:
        units: list[Unit] = []
        for number, pair in enumerate(pairs[start : start + CHUNK], start):
            sides = (pair.image, pair.question), (pair.image, pair.contrastive)
            try:
                runs = pair_runs(setup.model, *sides, answers, prompt=setup.decoding.prompt)
            except ValueError as error:
                units.append({"refused": one_line(error)})
            else:
                scene = pair.image if isinstance(pair.image, str) else pair.id or number
                units.append({"scene": str(scene), **_unit(runs)})
        return units

    chunks: dict[str, Callable[[], Any]] = {
        f"texts-{start:06d}": lambda start=start: compute(start)
        for start in range(0, len(pairs), CHUNK)
    }
    computed = setup.parts.keep_each(chunks, iterate(setup.progress, "texts"))
    units = [unit for chunk in computed for unit in chunk]
    compared = [unit for unit in units if "gap" in unit]
    _check_units(compared, units)
    return compared


def _check_units(compared: Sequence[Unit], every: Sequence[Unit]) -> None:
    """Raise ValueError where no two runs could be compared."""
    if not compared:
        reason = next((unit["refused"] for unit in every), "there are none")
        raise ValueError(
            f"none of the pairs of runs ({len(every)}) could be compared ({reason}): "
            "expected at least one; "
            "take other pairs."
        )


def _unit(runs: RunPair) -> Unit:
    return {
        "gap": abs(runs.clean_difference - runs.corrupted_difference),
        "heads": _listed(patch_heads(runs).values),
        "attention": _listed(patch_attention(runs).values),
    }


def _of_sets(runs: RunPair, inside: Bool[np.ndarray, " image"], seed: int) -> Unit:
    """Effects of the region, of as many other random image tokens, and of all of them."""
    rng = np.random.default_rng([seed, int(inside.sum()), int(inside.argmax())])
    others = np.zeros_like(inside)
    outside = np.flatnonzero(~inside)
    others[rng.choice(outside, min(int(inside.sum()), len(outside)), replace=False)] = True
    chosen = {"region": inside, "others": others, "whole": np.ones_like(inside)}
    return {
        name: _listed(patch_tokens(runs, runs.image_positions(torch.from_numpy(mask))).values)
        for name, mask in chosen.items()
    }


def _listed(values: Float[torch.Tensor, " layer"] | Float[torch.Tensor, "layer head"]) -> Any:
    """Rounded, with None for NaN."""
    rows = np.round(values.double().numpy(), 6).tolist()
    return [[_or_none(x) for x in row] if isinstance(row, list) else _or_none(row) for row in rows]


def _or_none(x: float) -> float | None:
    return x if np.isfinite(x) else None
