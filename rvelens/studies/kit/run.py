"""Running a study of one model, with everything that it depends on written down first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Benchmark
from rvelens.evaluate.answering import Decoding
from rvelens.evaluate.manifest import about_model, about_questions, versions
from rvelens.evaluate.run import Progress
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.paths import slug
from rvelens.heads.pair import ContrastivePair, check_pair
from rvelens.heads.profile import ARSProfile
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.weights import check_profile_of
from rvelens.studies.kit.base import LeftToFirst, Setup, Study
from rvelens.studies.kit.pairs import digest_of_pairs
from rvelens.studies.kit.parts import shared_parts


@refuse_wrong_types
def run_study(
    study: Study,
    model: HookedLVLM,
    benchmarks: Sequence[Benchmark],
    out: str | Path,
    *,
    profile: ARSProfile | None = None,
    pairs: Sequence[ContrastivePair] = (),
    methods: Sequence[Method] = (),
    decoding: Decoding | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    seed: int = 55,
    any_text: bool = False,
    progress: Progress = lambda items, label: items,
) -> tuple[Setup, dict[str, Any], dict[str, Any]] | None:
    """Measure a study on a model. What is computed is kept in `out/parts`, to go on from there.

    Processes that `torchrun` or `accelerate launch` started share the work.

    Args:
        study: from `rvelens.studies.find_study`.
        model: the hooked model, without hooks that are on.
        benchmarks: at least one.
        out: folder of the study.
        profile, pairs, methods: what the study needs of them.
        decoding: prompt, suffix, length and seed of answers.
        options: the study's own.
        batch_size: questions per forward; halved when memory runs out.
        seed: of draws and of bootstrap intervals.
        any_text: take pairs whose texts differ in more than one word too, as in `score_heads`.
        progress: wraps iterations, with a label, for progress bars.

    Returns:
        the setup, what it was made with (a manifest), and what was measured; `study.show` and
        `rvelens.studies.kit.write.write_study` make tables, figures and files of them. None in all
        but the first of several processes.

    Raises:
        ValueError: something that the study needs is missing, a pair that `check_pair` refuses, an
            option that the study has not, or a folder with parts that were made with something else,
            or that another run is writing; another process that failed or is gone.
    """
    options, decoding = study.settled(options or {}), decoding or Decoding()
    if "profile" in study.needs and profile is None:
        raise ValueError(
            f"study {study.name!r} without a head profile: expected a profile of this model; "
            "measure it with `rvelens scan` or score_heads."
        )
    if "pairs" in study.needs and not pairs:
        raise ValueError(
            f"study {study.name!r} without contrastive pairs: expected at least one; see "
            "ContrastivePair."
        )
    if profile is not None:
        check_profile_of(model, profile)
    for pair in () if any_text else pairs:
        check_pair(pair)
    made_with = {
        "study": study.name,
        "model": about_model(model),
        "profile": None if profile is None else profile.digest(),
        "benchmarks": [about_questions(benchmark) for benchmark in benchmarks],
        "pairs": digest_of_pairs(pairs),
        "methods": {method.name: dict(method.parameters) for method in methods},
        "decoding": asdict(decoding),
        "options": options,
        "seed": seed,
        "versions": versions(),
    }
    folder = Path(out) / "parts" / study.name / slug(model.name)
    with shared_parts(folder, made_with) as parts:
        first = parts.here.is_first
        setup = Setup(
            model, profile, tuple(benchmarks), tuple(pairs), tuple(methods), decoding, options, parts,
            batch_size, seed, progress if first else lambda items, label: items,
        )  # fmt: skip
        try:
            data = study.measure(setup)
        except LeftToFirst:
            return None
    return (setup, made_with, data) if first else None
