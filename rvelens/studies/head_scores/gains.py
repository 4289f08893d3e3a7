"""Steering by each ranking and by its controls: tuned on some photographs, reported on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rvelens.evaluate.scoring import score
from rvelens.heads.profile import ARSProfile
from rvelens.studies.head_scores.steering import ALL_HEADS, SWAPPED, make_steerings
from rvelens.studies.kit.base import Measured, Setup
from rvelens.studies.kit.settings import pair
from rvelens.studies.tune import search, split

VANILLA = "vanilla"
# What each way is compared with beside the plain model, all of them tuned.
CONTROLS = (ALL_HEADS, SWAPPED, "random")


def gains(setup: Setup, profiles: Mapping[str, ARSProfile]) -> dict[str, Any]:
    """What each way to steer gains on the test photographs: as published, and tuned for itself.

    All are tuned by the same search on the same validation photographs, and asked about the test
    photographs once, together.

    Returns:
        "settings": what the search chose, by way; "result": `evaluate.scoring.score` of the test
        questions, with a setting "NAME, published" and one "NAME, tuned" for each; "over": by control
        and name, the change of accuracy from the control to the way, both tuned.
    """
    validation, test = split(setup.benchmark, float(setup.options["share"]), setup.seed)
    chosen: dict[str, Any] = {}
    settings: dict[str, Any] = {VANILLA: []}
    for name, steering in make_steerings(setup, profiles).items():
        parts = setup.parts.open_subfolder("tune-" + name.replace(" ", "-"))
        chosen[name], _ = search(
            replace(setup, parts=parts), validation, steering.start, steering.hooks
        )
        settings[f"{name}, published"] = steering.hooks(**steering.start)
        settings[f"{name}, tuned"] = steering.hooks(**chosen[name])
    answers = setup.answers("test", test, settings)
    result = score(test, answers, setup.seed, against=VANILLA)
    tuned = {name: by_id for name, by_id in answers.items() if name.endswith(", tuned")}
    over = {}
    for control in (name for name in CONTROLS if name in chosen):
        comparison = score(test, tuned, setup.seed, against=f"{control}, tuned")
        over[control] = {name: _change(comparison, name, control) for name in chosen}
    return {
        "validation": len(validation.items),
        "settings": chosen,
        "result": result,
        "over": over,
    }


def _change(result: Measured, name: str, control: str) -> Mapping[str, float] | None:
    comparison = pair(result, f"{name}, tuned", f"{control}, tuned") if result["rules"] else None
    return comparison and comparison["change"]["accuracy"]
