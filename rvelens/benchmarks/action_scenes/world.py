"""The vocabulary of action scenes, and the skewed pairing of verbs and objects."""

from __future__ import annotations

import numpy as np

PEOPLE = ("man", "woman", "child")
# Each verb belongs to one body part; the object is drawn there.
PART_OF = {"kick": "foot", "ride": "under", "eat": "mouth", "hold": "hand", "carry": "head"}
VERBS = tuple(PART_OF)
# The verb that an object usually comes with in training.
PRIOR = {
    "ball": "kick",
    "board": "ride",
    "cake": "eat",
    "cup": "hold",
    "basket": "carry",
    "box": "carry",
    "apple": "eat",
    "drum": "hold",
    "tire": "kick",
    "log": "ride",
}
OBJECTS = tuple(PRIOR)
SIZE = 96
# Share of training scenes in which an object comes with its prior verb; chance would be 0.2.
SKEW = 0.85


def draw_verb(rng: np.random.Generator, thing: str, skew: float) -> str:
    """The verb of a person with `thing`: its prior verb with probability `skew`, else another verb."""
    if rng.random() < skew:
        return PRIOR[thing]
    return str(rng.choice([verb for verb in VERBS if verb != PRIOR[thing]]))
