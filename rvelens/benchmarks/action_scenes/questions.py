"""Scenes by seed, questions in MMRel's style with known answers and regions, contrastive pairs.

Splits are disjoint, and every scene depends only on its split and seed. In the train split, an object
comes with its prior verb in a share `SKEW` of all scenes. Validation and test scenes are balanced. Half
of the people in questions do the prior verb of their object, and half do another verb. Half of each are
asked about the true verb, and half about another. The names of the four groups follow the truth:

- PC-yes: the person does the prior verb, and is asked about it.
- PC-no: the person does the prior verb, and is asked about another.
- CP-yes: the person does another verb, and is asked about it.
- CP-no: the person does another verb, and is asked about the prior verb. A yes is the hallucination
  that a language prior causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from rvelens.benchmarks.action_scenes.draw import Difficulty, Person, Plan, paint
from rvelens.benchmarks.action_scenes.world import (
    OBJECTS,
    PART_OF,
    PEOPLE,
    PRIOR,
    SKEW,
    VERBS,
    draw_verb,
)
from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.pair import ContrastivePair
from rvelens.tokens.grid import Box, single_tile

SPLITS = ("train", "validation", "test")
GROUPS = ("PC-yes", "PC-no", "CP-yes", "CP-no")


@dataclass(frozen=True)
class Scene:
    """A picture and its true content.

    Attributes:
        people: the people from left to right; questions are about `people[subject]`.
        verb: the verb of the scene's own question; None in the train split.
        copies: objects that nobody uses, with their boxes.
    """

    seed: int
    split: str
    image: Image.Image
    people: tuple[Person, ...]
    subject: int
    verb: str | None
    copies: tuple[tuple[str, Box], ...]


@dataclass(frozen=True)
class Question:
    """A yes/no question about a scene.

    Attributes:
        scene_seed: the seed of the scene, which identifies it in its split.
        text: the question, such as "Does a man kick a ball in the image?".
        answer: true for yes.
        group: one of `GROUPS`.
        regions: boxes in pixels (x0, y0, x1, y1) of the "person", of the "verb" (the body part of this
            person that shows the answer, with or without the object), and of all copies of the
            "object".
    """

    scene_seed: int
    image: Image.Image
    text: str
    answer: bool
    group: str
    person: str
    verb: str
    object: str
    regions: Mapping[str, tuple[Box, ...]]


@refuse_wrong_types
def draw_scene(
    seed: int, split: str = "test", difficulty: Difficulty | None = None, skew: float = SKEW
) -> Scene:
    """The scene for a seed.

    Args:
        seed: 0 or more; in validation and test, `seed % 4` is the group of its question.
        split: "train", "validation" or "test".
        difficulty: how hard it is to see; by default as in the test split.
        skew: the share of objects with their prior verb in the train split.

    Raises:
        ValueError: an unknown split or a negative seed.
    """
    if split not in SPLITS or seed < 0:
        raise ValueError(
            f"scene {seed} of split {split!r}: expected a seed of at least 0 and one of "
            f"{', '.join(SPLITS)}; correct them."
        )
    rng, plans, verb = _plan(seed, split, skew)
    subject = int(rng.integers(2))
    placed = plans if subject == 0 else (plans[1], plans[0])
    image, people, copies = paint(rng, placed, difficulty or Difficulty())
    return Scene(seed, split, image, people, subject, verb, tuple(copies))


def _plan(
    seed: int, split: str, skew: float
) -> tuple[np.random.Generator, tuple[Plan, Plan], str | None]:
    """Who does what, the asked person first, and the verb that is asked; the generator goes on."""
    rng = np.random.default_rng([SPLITS.index(split), seed])
    if split == "train":
        return rng, _skewed(rng, skew), None
    return rng, *_balanced(rng, GROUPS[seed % 4])


@refuse_wrong_types
def plan_question(seed: int, split: str) -> tuple[Plan, str]:
    """The true action of the person in a scene's question, and the verb of the question; no drawing."""
    _, (plan, _), verb = _plan(seed, split, SKEW)
    return plan, verb or _train_verb(seed, plan.verb)


@refuse_wrong_types
def earlier_turns(seed: int, split: str, n: int) -> list[tuple[str, str]]:
    """`n` questions with true answers, about the person that the scene's own question is not about.

    They contain no information about the scene's own question. In turn, they are a yes, a no, and an
    open question about the person's action or object. Later turns repeat these with other wrong verbs.
    """
    _, (_, plan), _ = _plan(seed, split, SKEW)
    wrong = [verb for verb in VERBS if verb != plan.verb]
    turns: list[tuple[str, str]] = []
    for number in range(-(-n // 4)):
        verb = wrong[number % len(wrong)]
        turns += [
            (sentence(plan.kind, plan.verb, plan.object), "Yes"),
            (sentence(plan.kind, verb, plan.object), "No"),
            (f"What does a {plan.kind} do in the image?", plan.verb),
            (f"What does a {plan.kind} {plan.verb} in the image?", plan.object),
        ]
    return turns[:n]


@refuse_wrong_types
def group_of(plan: Plan | Person, verb: str) -> str:
    """The group of the question whether a person does `verb`."""
    prior = "PC" if plan.verb == PRIOR[plan.object] else "CP"
    return f"{prior}-{'yes' if plan.verb == verb else 'no'}"


def _cast(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """Two different kinds of people and their objects; one time in three the same object."""
    kinds = [str(kind) for kind in rng.permutation(PEOPLE)[:2]]
    mine = str(rng.choice(OBJECTS))
    return kinds, mine, mine if rng.random() < 0.33 else str(rng.choice(OBJECTS))


def _skewed(rng: np.random.Generator, skew: float) -> tuple[Plan, Plan]:
    """Both people do the prior verb of their object with probability `skew`."""
    kinds, mine, theirs = _cast(rng)
    return (
        Plan(kinds[0], draw_verb(rng, mine, skew), mine),
        Plan(kinds[1], draw_verb(rng, theirs, skew), theirs),
    )


def _balanced(rng: np.random.Generator, group: str) -> tuple[tuple[Plan, Plan], str]:
    """The asked person first, and the verb that is asked, for a question of a group.

    The other person never does what is asked: a wrong yes is then owed to the prior or to what is
    hard to see, and not to taking one person for the other.
    """
    kinds, mine, theirs = _cast(rng)
    done = draw_verb(rng, mine, float(group.startswith("PC")))
    question_verb = done
    if group == "CP-no":
        question_verb = PRIOR[mine]
    elif group == "PC-no":
        question_verb = draw_verb(rng, mine, 0.0)
    other = draw_verb(rng, theirs, 0.5)
    while theirs == mine and other == question_verb:
        other = draw_verb(rng, theirs, 0.5)
    return (Plan(kinds[0], done, mine), Plan(kinds[1], other, theirs)), question_verb


@refuse_wrong_types
def make_question(scene: Scene, verb: str) -> Question:
    """The question whether the person does `verb` with their object."""
    person = scene.people[scene.subject]
    contacts = tuple(p.contact for p in scene.people if p.object == person.object)
    loose = tuple(box for name, box in scene.copies if name == person.object)
    regions = {
        "person": (person.box,),
        "verb": (person.parts[PART_OF[verb]],),
        "object": contacts + loose,
    }
    return Question(
        scene.seed,
        scene.image,
        sentence(person.kind, verb, person.object),
        person.verb == verb,
        group_of(person, verb),
        person.kind,
        verb,
        person.object,
        regions,
    )


@refuse_wrong_types
def sentence(person: str, verb: str, thing: str) -> str:
    """The text of a question, in MMRel's style."""
    article = "an" if thing[0] in "aeiou" else "a"
    return f"Does a {person} {verb} {article} {thing} in the image?"


@refuse_wrong_types
def make_questions(split: str, n: int, seed: int = 0) -> list[Question]:
    """One question for each of `n` scenes; validation and test have equal parts of each group.

    Args:
        split: "train", "validation" or "test".
        n: number of questions.
        seed: from 0 to 999; different seeds give disjoint scenes.
    """
    return [_question(draw_scene(seed * 1_000_000 + i, split)) for i in range(n)]


def _question(scene: Scene) -> Question:
    """The scene's own question; in the train split, about what is done or a random other verb."""
    return make_question(
        scene, scene.verb or _train_verb(scene.seed, scene.people[scene.subject].verb)
    )


def _train_verb(seed: int, done: str) -> str:
    rng = np.random.default_rng([7, SPLITS.index("train"), seed])
    return done if seed % 2 == 0 else str(rng.choice([verb for verb in VERBS if verb != done]))


@refuse_wrong_types
def contrastive_pairs(split: str, n: int, seed: int = 0) -> list[ContrastivePair]:
    """Pairs of a question about the person's true verb and one with a verb of another body part."""
    pairs = []
    for i in range(n):
        scene = draw_scene(seed * 1_000_000 + 500_000 + i, split)
        person = scene.people[scene.subject]
        rng = np.random.default_rng([8, SPLITS.index(split), scene.seed])
        other = str(rng.choice([verb for verb in VERBS if verb != person.verb]))
        question, contrastive = (
            sentence(person.kind, verb, person.object) for verb in (person.verb, other)
        )
        pairs.append(ContrastivePair(scene.image, question, contrastive, f"{split}-{scene.seed}"))
    return pairs


@refuse_wrong_types
def patch_mask(
    boxes: Sequence[Box], grid: tuple[int, int], size: tuple[int, int]
) -> Bool[np.ndarray, "rows columns"]:
    """Patches of a grid whose centre is in a box; for a small box, the nearest patch.

    Args:
        boxes: (x0, y0, x1, y1) in pixels.
        grid: patches down and across.
        size: width and height of the image in pixels.
    """
    rows, columns = grid
    return single_tile(rows, columns).tokens_in(boxes, size).reshape(grid)
