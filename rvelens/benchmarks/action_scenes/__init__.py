"""Action scenes: drawn pictures of people who use objects, and questions about them."""

from __future__ import annotations

from rvelens.benchmarks.action_scenes.draw import CLEAR, FAINT, Difficulty, Person
from rvelens.benchmarks.action_scenes.questions import (
    GROUPS,
    SPLITS,
    Question,
    Scene,
    contrastive_pairs,
    draw_scene,
    earlier_turns,
    group_of,
    make_question,
    make_questions,
    patch_mask,
    plan_question,
    sentence,
)

__all__ = [
    "CLEAR",
    "FAINT",
    "GROUPS",
    "SPLITS",
    "Difficulty",
    "Person",
    "Question",
    "Scene",
    "contrastive_pairs",
    "draw_scene",
    "earlier_turns",
    "group_of",
    "make_question",
    "make_questions",
    "patch_mask",
    "plan_question",
    "sentence",
]
