"""RVE by each ranking: its settings tuned on some photographs, and reported on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rvelens.evaluate.scoring import score
from rvelens.hooks import rve_hooks
from rvelens.methods import make_method
from rvelens.profile import ARSProfile
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.settings import of_rve
from rvelens.studies.tune import search, split

PLAIN = "vanilla"


def gains(setup: Setup, profiles: Mapping[str, ARSProfile]) -> dict[str, Any]:
    """What RVE gains on the test photographs, by score: as published, and tuned for that ranking.

    Every ranking is tuned by the same search on the same validation photographs, and all are asked
    about the test photographs once, together.

    Returns:
        "settings": what the search chose, by score; "result": `evaluate.scoring.score` of the test
        questions, with a setting "NAME, published" and one "NAME, tuned" for each score.
    """
    validation, test = split(setup.benchmark, float(setup.options["share"]), setup.seed)
    chosen: dict[str, Any] = {}
    settings: dict[str, Any] = {PLAIN: []}
    for name, profile in profiles.items():
        method = make_method("rve", setup.model, profile, layers=setup.options["layers"])
        parts = setup.parts.below(f"tune-{name}")
        mine = replace(setup, profile=profile, methods=(method,), parts=parts)
        base = of_rve(mine)
        chosen[name], _ = search(mine, validation, base)
        settings[f"{name}, published"] = rve_hooks(profile, **base)
        settings[f"{name}, tuned"] = rve_hooks(profile, **chosen[name])
    answers = setup.answers("test", test, settings)
    return {
        "validation": len(validation.items),
        "settings": chosen,
        "result": score(test, answers, setup.seed, against=PLAIN),
    }
