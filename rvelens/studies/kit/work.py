"""How much a study will run, counted from its setup."""

from __future__ import annotations

from collections.abc import Sequence

from rvelens.benchmarks import Item
from rvelens.evaluate.answering import side_by_side
from rvelens.interventions.methods import Method
from rvelens.model.replay import Hooks, can_replay, replays_exactly
from rvelens.studies.kit.base import Setup, Work

# Bytes of a line of answers.jsonl, and of an answer or a number among a study's parts, about.
_LINE, _PART = 250, 40


def work_of_methods(
    setup: Setup, items: Sequence[Item], methods: Sequence[Method] | None = None
) -> Work:
    """Questions asked as `rvelens eval` asks them.

    Methods that a replay can run take one prompt together. The second branch of a contrast is a
    prompt and an answer more.

    Args:
        setup: of the study.
        items: the questions.
        methods: by default those of the setup.
    """
    methods = setup.methods if methods is None else methods
    contrasts = sum(method.contrast is not None for method in methods)
    prompts = len(side_by_side(setup.model, methods)) + contrasts
    n = len(items)
    return Work(n * prompts, n * (len(methods) + contrasts), stored=n * len(methods) * _LINE)


def work_of_all_questions(setup: Setup) -> Work:
    """Every question of every benchmark under every method."""
    return work_of_methods(
        setup, [item for benchmark in setup.benchmarks for item in benchmark.items]
    )


def work_of_settings(setup: Setup, items: Sequence[Item], settings: Sequence[Hooks]) -> Work:
    """Questions asked by `Setup.answers`: all settings behind one prompt where the model allows it."""
    n, model = len(items), setup.model
    together = replays_exactly(model) and all(can_replay(model, hooks) for hooks in settings)
    prompts = n if together else n * len(settings)
    return Work(prompts, n * len(settings), None, n * len(settings) * _PART)


def work_of_prompts(n: int, numbers: int = 1) -> Work:
    """Prompts of which `numbers` numbers each are stored, and nothing is generated."""
    return Work(n, stored=n * numbers * _PART)
