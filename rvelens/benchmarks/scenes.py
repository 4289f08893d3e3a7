"""Action scenes as a benchmark: drawn pictures whose answers are known, no files needed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rvelens.benchmarks import rules
from rvelens.benchmarks.action_scenes import SPLITS, Question, make_questions
from rvelens.benchmarks.base import Benchmark, Item

NAME = "action-scenes"


def load(
    data: Path | None = None, *, split: str = "test", n: int = 1000, seed: int = 0
) -> Benchmark:
    """Questions about `n` drawn scenes, with the groups PC-yes, PC-no, CP-yes and CP-no.

    The answers are read by the strict rule: there is no published one.

    Args:
        data: not needed and not read.
        split: "train", "validation" or "test".
        n: number of questions, one a scene.
        seed: from 0 to 999; different seeds give disjoint scenes.

    Raises:
        ValueError: an unknown split, fewer than one question, or a seed out of range.
    """
    if split not in SPLITS or n < 1 or not 0 <= seed <= 999:
        raise ValueError(
            f"action scenes with split {split!r}, n {n} and seed {seed}: expected a split of "
            f"{', '.join(SPLITS)}, n of at least 1 and a seed from 0 to 999."
        )
    items = tuple(_item(question, split) for question in make_questions(split, n, seed))
    return Benchmark(NAME, items, (), rules.strict, {}, published=n)


def _item(question: Question, split: str) -> Item:
    key = f"{split}-{question.scene_seed}"

    def load() -> Image.Image:
        return question.image

    return Item(
        id=key,
        image=key,
        source=key,
        text=question.text,
        truth=question.answer,
        reference=None,
        group=question.group,
        load=load,
    )
