"""What `rvelens bench` reports, in types; dictionaries in it go by the names of settings."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict, cast

from rvelens.files.atomic import parse_json

# What is measured, by the names that the tables show.
PLAIN, UNHOOKED, RVE, BRIDGE = "transformers SDPA", "HookedLVLM", "HookedLVLM + RVE", "Bridge + RVE"
PLAIN_COMPILED, RVE_COMPILED = f"{PLAIN}, compiled", f"{RVE}, compiled"


class Conditions(TypedDict):
    """What was measured on what."""

    shape: str
    device: str
    dtype: str
    threads: int
    layers: int
    rve_layers: list[int]
    prompt_tokens: int
    new_tokens: int
    runs: int


class Times(TypedDict):
    """Times of a generation.

    Attributes:
        seconds: medians over rounds.
        ratios, quartiles: of seconds within rounds, to the plain model in the same mode.
        missing: settings that could not be timed, and why.
    """

    seconds: dict[str, float]
    ratios: dict[str, float]
    quartiles: dict[str, list[float]]
    missing: dict[str, str]


class Counts(TypedDict):
    """What one decode step of batch 1 takes.

    Attributes:
        kernels: operations behind a dynamic cache that are no views.
        graph_breaks: of the step compiled behind a static cache.
        uncounted: settings whose graph breaks were not counted, and why.
    """

    kernels: dict[str, int]
    graph_breaks: dict[str, int]
    uncounted: dict[str, str]


class Ratio(TypedDict):
    """A ratio of two times within rounds.

    Attributes:
        ratio: median over rounds.
        quartiles: first and third.
        arithmetic: ratio of the floating-point operations, where they were counted.
    """

    ratio: float
    quartiles: list[float]
    arithmetic: NotRequired[float]


class SharingResult(Ratio):
    """Several questions about one image, with and without a shared prefix."""

    questions: int
    answer_tokens: int
    per_second: dict[str, float]
    same_answers: bool


class ScoringResult(Ratio):
    """Head scores of pairs, in one forward that shares images and in two forwards."""

    pairs: int
    seconds: dict[str, float]
    largest_score: float
    largest_difference: float


class SettingsResult(Ratio):
    """Many settings in one run against one plain run; `whole` is against plain `generate`."""

    settings: int
    questions: int
    answer_tokens: int
    seconds: dict[str, float]
    whole: NotRequired[Ratio]
    same_answers: bool


class OtherMeasurements(TypedDict):
    """What is measured beside generation, by the modules of these names; `memory` reports captures."""

    capture: list[dict[str, int]]
    sharing: SharingResult
    scoring: ScoringResult
    settings: SettingsResult


class BenchResult(Conditions, Times, Counts, OtherMeasurements):
    """All that one run reports."""


def plain_of(name: str) -> str:
    """The setting that a setting is compared with: the plain model in the same mode."""
    return PLAIN_COMPILED if name in (PLAIN_COMPILED, RVE_COMPILED) else PLAIN


def read_result(path: Path) -> BenchResult:
    """What `rvelens bench --json` printed into a file.

    Files of versions that counted nothing are read too: their table has empty columns.

    Raises:
        ValueError: the file is missing, or holds something else.
    """
    try:
        data = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON ({error}): expected a file that holds what `rvelens "
            "bench --json` printed; check the path."
        ) from error
    absent = set(BenchResult.__annotations__) - set(Counts.__annotations__)
    absent -= set(data) if isinstance(data, dict) else set()
    if absent:
        raise ValueError(
            f"{path} has no {', '.join(sorted(absent))}: expected what `rvelens bench --json` "
            "printed; measure again, or choose another file."
        )
    return cast(BenchResult, {"kernels": {}, "graph_breaks": {}, "uncounted": {}, **data})
