"""One row a score: finding the region, masking, RVE's gain, and how many pairs a ranking takes."""

from __future__ import annotations

from typing import Any, get_args

from rvelens.evaluate.tuned import By
from rvelens.heads.layers import parse_layers
from rvelens.model.yes_no import yes_no_ids
from rvelens.scores import SCORES
from rvelens.studies.ars_map.agreement import agreement, other_ranking
from rvelens.studies.ars_map.study import photographs_of
from rvelens.studies.head_scores.finding import findings
from rvelens.studies.head_scores.gains import gains
from rvelens.studies.head_scores.masking import MIN_DRAWS, costs
from rvelens.studies.head_scores.profiles import chosen_scores, halves_agree, profile_by, rankings
from rvelens.studies.head_scores.render import show_scores
from rvelens.studies.kit.asking import need_truths
from rvelens.studies.kit.base import Setup, Study
from rvelens.studies.masking.masks import settled_counts
from rvelens.studies.tune import split


def _measure(setup: Setup) -> dict[str, Any]:
    """Everything about every score, on the same pairs, questions and draws."""
    names = chosen_scores(setup)
    _check(setup)
    model, options, seed = setup.model, setup.options, setup.seed
    other = other_ranking(model, options["against"])
    profiles = {name: profile_by(setup, name) for name in names}
    first = next(iter(profiles.values()))
    layers = parse_layers(str(options["layers"]), first, model.n_layers)
    k = max(1, min(options["k"], model.n_heads // 2))
    cluster = photographs_of(setup.pairs)
    return {
        "model": model.name,
        "benchmark": setup.benchmark.name,
        "questions": len(setup.benchmark.items),
        "photographs": len({item.source for item in setup.benchmark.items}),
        "pairs": len(setup.pairs),
        "layers": layers,
        "k": k,
        "n_heads": model.n_heads,
        "definitions": {name: [SCORES[name].about, SCORES[name].source] for name in names},
        "rankings": rankings(profiles),
        "stability": {
            name: halves_agree(profile, k, options["n_draws"], seed)
            for name, profile in profiles.items()
        },
        "agreement": other
        and {"with": other[0]}
        | {
            name: agreement(profile.per_pair.double().numpy(), other[1], cluster, seed)
            for name, profile in profiles.items()
            if profile.per_pair is not None
        },
        "finding": findings(setup, profiles, layers, k),
        "masking": costs(setup, profiles, layers),
        "gains": gains(setup, profiles),
    }


def _check(setup: Setup) -> None:
    """Refuse what would fail after hours."""
    options = setup.options
    need_truths("head-scores", setup.benchmarks)
    for name, least in (("k", 1), ("n_draws", 50), ("n_random", MIN_DRAWS), ("n_questions", 1)):
        if options[name] < least:
            raise ValueError(f"{name}={options[name]}: expected at least {least}; leave it out.")
    if options["by"] not in get_args(By):
        raise ValueError(
            f"tuning by {options['by']!r}: expected one of {', '.join(get_args(By))}; choose one."
        )
    if str(options["layers"]).strip() == "auto":
        raise ValueError(
            "layers='auto' would differ between scores: expected the same layers for all; use "
            "'preset' or a list."
        )
    parse_layers(str(options["layers"]), None, setup.model.n_layers)
    n_heads = setup.model.n_heads
    if not any(0 < n < n_heads for n in settled_counts(options["counts"], n_heads)):
        raise ValueError(
            f"counts={options['counts']} of {n_heads} heads: expected a number between none and "
            "all of them; leave it out to use an even series."
        )
    split(setup.benchmark, float(options["share"]), setup.seed)
    yes_no_ids(setup.model.processor)


STUDY = Study(
    "head-scores",
    "",
    "seven scores of heads: do they find the region, what does masking cost, what does RVE gain",
    _measure,
    show_scores,
    needs=frozenset({"pairs"}),
    options={
        "scores": [],
        "k": 5,
        "layers": "preset",
        "n_random": 20,
        "counts": [],
        "n_questions": 96,
        "n_draws": 200,
        "against": "",
        "by": "balanced_accuracy",
        "share": 0.3,
        "rounds": 1,
        "band_step": 1,
        "alphas": [0.02, 0.05, 0.1, 0.2, 0.5],
        "betas": [0.25, 0.5, 1.0, 2.0],
        "ks": [1, 3, 5],
        "denoise": [True, False],
    },
)
