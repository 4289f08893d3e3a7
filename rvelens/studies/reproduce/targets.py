"""Every table and figure of the paper: the study that measures it, and on which questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MMREL = (("mmrel-real",), ("mmrel-dalle",))
_RBENCH = (("rbench-image",), ("rbench-instance-box",), ("rbench-instance-mask",))
_POPE = (("pope-random",), ("pope-popular",), ("pope-adversarial",))
_AMBER = (("amber-relation",),)
_REAL = (("mmrel-real",),)
_ALL = ("vanilla", "vcd", "icd", "vaf", "rve")

# What the paper leaves open of several results, and what changes it.
_LAYERS = (
    "The paper says 'middle layers' and no number; the preset is that of its public code. "
    "--set rve.layers=9-20 takes others."
)
_PROMPT = "The paper does not print its prompt; --prompt and --suffix take another."
_SUBSET = (
    "Which questions of R-Bench are of action or spatial relations was not published; a rule on "
    "their words chooses. --rbench all asks all of them, for which the paper has no number."
)
_MARKS = (
    "The paper does not say whether R-Bench (Instance) marks boxes or masks; both are measured."
)
_QUESTIONS = "The paper does not name the questions of this figure; --limit takes more or fewer."


@dataclass(frozen=True, eq=False)
class Target:
    """One or several results of the paper that one study measures.

    Attributes:
        name: a folder's name.
        results: "table1", "figure9a" and the like.
        study: a name of `rvelens.studies.NAMES`.
        runs: benchmarks of each run of the study.
        relation: of MMRel's and R-Bench's questions.
        methods: that are compared; () for the study's own.
        options: of the study, where they are not its defaults.
        of_model: further ones for one of the paper's models, by `rvelens.studies.kit.paper.model_key`.
        limit_option: the study's option that limits questions; "" where they are sampled before.
        limit: questions of a run that are asked at most; None for all.
        open_ended: whether answers are sentences.
        leaves_open: what the paper does not say of it, and the switch that changes it.
    """

    name: str
    results: tuple[str, ...]
    study: str
    runs: tuple[tuple[str, ...], ...]
    relation: str = "action"
    methods: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    of_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limit_option: str = ""
    limit: int | None = None
    open_ended: bool = False
    leaves_open: tuple[str, ...] = ()


TARGETS: tuple[Target, ...] = (
    Target(
        "table1", ("table1",), "main-table", (*_MMREL, *_RBENCH, *_AMBER), methods=_ALL,
        leaves_open=(_LAYERS, _PROMPT, _SUBSET, _MARKS),
    ),
    Target(
        "table2", ("table2",), "open-ended", (("mmrel-open",),), methods=("vanilla", "rve"),
        open_ended=True,
        leaves_open=(
            _LAYERS,
            "The paper does not print the prompt of open-ended questions; --open-prompt takes another.",
            "The judge's prompt is this project's wording of the paper's criteria; "
            "--option open-ended.judge_model=MODEL names the judge.",
        ),
    ),
    Target(
        "table3", ("table3",), "main-table", (*_MMREL, *_RBENCH), "spatial", ("vanilla", "rve"),
        leaves_open=(_LAYERS, _PROMPT, _SUBSET, _MARKS),
    ),
    Target(
        "table4", ("table4",), "main-table", _POPE, methods=("vanilla", "vcd", "vaf", "rve"),
        leaves_open=(_LAYERS, _PROMPT),
    ),
    Target(
        "table5-7", ("table5", "table7"), "ablation", _REAL, leaves_open=(_LAYERS, _PROMPT)
    ),
    Target(
        "figure2-3", ("figure2", "figure3"), "imbalance", _REAL, limit=500,
        leaves_open=(_PROMPT, _QUESTIONS),
    ),
    Target(
        "figure5", ("figure5",), "ars-map", ((),),
        leaves_open=("Of the paper's pairs 40 rows are public; --pairs takes others.", _PROMPT),
    ),
    Target(
        "figure6", ("figure6",), "attention-maps", _REAL, of_model={"llava-1.5-7b": {"layer": 14}},
        leaves_open=(
            "The paper does not say which question it shows; "
            "--option attention-maps.question=ID chooses one.",
        ),
    ),
    Target(
        "figure7-8", ("figure7", "figure8"), "sweep", _REAL, limit=1000,
        of_model={"instructblip-7b": {"alphas": [0.05, 0.1, 0.3, 0.5, 0.7, 0.9]}},
        leaves_open=(
            _LAYERS, _QUESTIONS,
            "The paper does not say which values it tried; --option sweep.alphas=[0.05,0.5] and the "
            "like take others, sweep.band_step=4 fewer bands of layers.",
        ),
    ),
    Target(
        "figure9a", ("figure9a",), "masking", _REAL, options={"n_questions": 1000},
        limit_option="n_questions",
        leaves_open=(
            "The paper does not say in which layers it masks, nor how many random choices it drew; "
            "--option masking.layers=all and masking.n_random=20 take others.",
        ),
    ),
    Target(
        "figure9b", ("figure9b",), "latency", _REAL, methods=_ALL, options={"n_questions": 20},
        limit_option="n_questions",
        leaves_open=(
            "The paper does not name the length of answers; --option latency.new_tokens=2 is one "
            "word and its end.",
        ),
    ),
    Target(
        "figure10", ("figure10",), "object-vs-action", (("amber-existence", "amber-relation"),),
        methods=("vanilla",), limit_option="n_photographs",
        leaves_open=(
            "The paper's questions about objects were not published: AMBER's replace them, and "
            "the paper has no number for these.",
        ),
    ),
    Target(
        "figure13-17", tuple(f"figure{n}" for n in range(13, 18)), "cases",
        (*_MMREL, *_RBENCH, *_AMBER), methods=("vanilla", "rve"),
        leaves_open=("The paper shows chosen cases; these are drawn at random.", _LAYERS),
    ),
)  # fmt: skip

# What nothing measures, and what it is.
UNMEASURED: Mapping[str, str] = {
    "table6": "examples of contrastive pairs; `rvelens pairs make` makes such",
    "figure1": "a drawing",
    "figure4": "a drawing",
    "figure11": "prompts that make pairs; `rvelens pairs make` has its own",
    "figure12": "the judge's prompt; `rvelens judge` has its own",
}


def choose_targets(tables: Sequence[str] = (), figures: Sequence[str] = ()) -> tuple[Target, ...]:
    """The targets of tables and figures by their numbers, "1" or "9a"; all of them without any.

    Raises:
        ValueError: a number that the paper has not, or of something that nothing measures.
    """
    names = [name for n in tables for name in _results("table", n)]
    names += [name for n in figures for name in _results("figure", n)]
    if not names:
        return TARGETS
    return tuple(target for target in TARGETS if set(target.results) & set(names))


def _results(kind: str, number: str) -> Iterator[str]:
    every = [name for target in TARGETS for name in target.results]
    name = f"{kind}{number.strip().lower()}"
    matches = [
        result for result in every if result == name or (result[:-1] == name and result[-1] in "ab")
    ]
    if matches:
        yield from matches
        return
    if name in UNMEASURED:
        raise ValueError(
            f"{kind} {number} is {UNMEASURED[name]}: expected one that is measured; leave it out."
        )
    numbers = ", ".join(result.removeprefix(kind) for result in every if result.startswith(kind))
    raise ValueError(f"{kind} {number!r}: expected one of {numbers}; pass one of them.")
