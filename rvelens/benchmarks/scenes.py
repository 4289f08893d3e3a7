"""Action scenes as a benchmark: drawn pictures with known answers, without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rvelens.benchmarks import rules
from rvelens.benchmarks.action_scenes import (
    SPLITS,
    draw_scene,
    earlier_turns,
    group_of,
    make_question,
    plan_question,
    sentence,
)
from rvelens.benchmarks.base import Benchmark, Item

NAME, TURNS, OPEN = "action-scenes", "action-scenes-turns", "action-scenes-open"


def load_scenes(
    data: Path | None = None, *, split: str = "test", n: int = 1000, seed: int = 0
) -> Benchmark:
    """Yes/no questions about `n` drawn scenes, with the groups PC-yes, PC-no, CP-yes and CP-no.

    The strict rule reads the answers, because there is no published rule.

    Args:
        data: not used.
        split: "train", "validation" or "test".
        n: number of scenes, each with one question.
        seed: from 0 to 999; different seeds give disjoint scenes.

    Raises:
        ValueError: an unknown split, fewer than one scene, or a seed out of range.
    """
    _check(split, n, seed)
    items = tuple(_item(split, seed * 1_000_000 + i) for i in range(n))
    return Benchmark(NAME, items, (), rules.strict, {}, published=n)


def load_turns(
    data: Path | None = None,
    *,
    split: str = "test",
    n: int = 1000,
    seed: int = 0,
    turns: int = 8,
) -> Benchmark:
    """The questions of `load_scenes`, each after earlier turns about the same picture.

    The earlier questions are about the other person, and have correct answers. A model that was trained
    on single questions gives less attention to the image here. This is the dilution that the paper
    describes, without an injected fault. Turns have the format of LLaVA-1.5, "... ASSISTANT: Yes USER:
    ...", inside the question of the prompt.

    Args:
        data: not used.
        split, n, seed: as for `load_scenes`.
        turns: the number of earlier turns, at least 1.

    Raises:
        ValueError: an error of `load_scenes`, or no turns.
    """
    if turns < 1:
        raise ValueError(f"turns={turns}: expected at least 1; for none, use {NAME}.")
    single = load_scenes(split=split, n=n, seed=seed)
    items = tuple(
        replace(item, text=_behind(earlier_turns(seed * 1_000_000 + i, split, turns), item.text))
        for i, item in enumerate(single.items)
    )
    return replace(single, name=TURNS, items=items)


def _behind(turns: Sequence[tuple[str, str]], text: str) -> str:
    exchanges = (f"{question} ASSISTANT: {answer} USER: " for question, answer in turns)
    return "".join(exchanges) + text


def load_open(
    data: Path | None = None, *, split: str = "test", n: int = 1000, seed: int = 0
) -> Benchmark:
    """Two open-ended questions about each scene of `load_scenes`, in the groups object and action.

    The questions are "What does a man kick in the image?" and "What does a man do with a ball?". The
    reference is the correct word, "ball" or "kick".

    Args:
        data: not used.
        split, n, seed: as for `load_scenes`; `n` scenes give 2 n questions.

    Raises:
        ValueError: as `load_scenes`.
    """
    _check(split, n, seed)
    seeds = (seed * 1_000_000 + i for i in range(n))
    items = tuple(item for scene_seed in seeds for item in _open_items(split, scene_seed))
    return Benchmark(OPEN, items, (), rules.judged, {}, positives=(), published=2 * n)


def _check(split: str, n: int, seed: int) -> None:
    if split not in SPLITS or n < 1 or not 0 <= seed <= 999:
        raise ValueError(
            f"action scenes with split {split!r}, n {n} and seed {seed}: expected a split of "
            f"{', '.join(SPLITS)}, n of at least 1 and a seed from 0 to 999; correct them."
        )


# Drawn when they are looked at: a sample of a few questions must not wait for a thousand pictures.
_scene = lru_cache(maxsize=256)(draw_scene)


def _item(split: str, seed: int) -> Item:
    """The scene's own question."""
    plan, verb = plan_question(seed, split)
    return Item(
        id=f"{split}-{seed}",
        **_shown(split, seed),
        text=sentence(plan.kind, verb, plan.object),
        truth=plan.verb == verb,
        reference=None,
        group=group_of(plan, verb),
        regions=lambda: make_question(_scene(seed, split), verb).regions,
    )


def _open_items(split: str, seed: int) -> list[Item]:
    """What the asked person uses, and what they do with it."""
    plan, _ = plan_question(seed, split)
    article = "an" if plan.object[0] in "aeiou" else "a"
    texts = {
        "object": (f"What does a {plan.kind} {plan.verb} in the image?", plan.object),
        "action": (f"What does a {plan.kind} do with {article} {plan.object}?", plan.verb),
    }
    return [
        Item(
            id=f"{split}-{seed}-{group}",
            **_shown(split, seed),
            text=text,
            truth=None,
            reference=word,
            group=group,
        )
        for group, (text, word) in texts.items()
    ]


def _shown(split: str, seed: int) -> dict[str, Any]:
    """The picture of an item."""
    key = f"{split}-{seed}"
    return {"image": key, "source": key, "load": lambda: _scene(seed, split).image}
