"""Steering by each ranking and by its controls: tuned on some photographs, reported on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rvelens.evaluate.scoring import score
from rvelens.heads.profile import ARSProfile
from rvelens.studies.head_scores.ways import ALL_HEADS, SWAPPED, ways_to_steer
from rvelens.studies.kit.base import Setup
from rvelens.studies.kit.settings import pair
from rvelens.studies.tune import search, split

PLAIN = "vanilla"
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
    settings: dict[str, Any] = {PLAIN: []}
    for name, way in ways_to_steer(setup, profiles).items():
        parts = setup.parts.below("tune-" + name.replace(" ", "-"))
        chosen[name], _ = search(replace(setup, parts=parts), validation, way.start, way.hooks)
        settings[f"{name}, published"] = way.hooks(**way.start)
        settings[f"{name}, tuned"] = way.hooks(**chosen[name])
    answers = setup.answers("test", test, settings)
    result = score(test, answers, setup.seed, against=PLAIN)
    tuned = {name: said for name, said in answers.items() if name.endswith(", tuned")}
    over = {}
    for control in (one for one in CONTROLS if one in chosen):
        beside = score(test, tuned, setup.seed, against=f"{control}, tuned")
        over[control] = {name: _change(beside, name, control) for name in chosen}
    return {
        "validation": len(validation.items),
        "settings": chosen,
        "result": result,
        "over": over,
    }


def _change(result: Mapping[str, Any], name: str, control: str) -> Mapping[str, float] | None:
    found = pair(result, f"{name}, tuned", f"{control}, tuned") if result["rules"] else None
    return found and found["change"]["accuracy"]
