"""A setup for studies: rvelens/tiny, few questions, one thread."""

from __future__ import annotations

from functools import cache

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study
from rvelens.studies.kit.run import run_study


@cache
def tiny():
    return HookedLVLM.from_pretrained("rvelens/tiny"), ARSProfile.load(TINY / "profile.safetensors")


def measured(name, out, n=24, methods=("rve",), **options):
    """Setup and JSON of a study of rvelens/tiny on `n` questions."""
    model, profile = tiny()
    benchmark = load_benchmark("action-scenes", n=n)
    made = [make_method(one, model, profile) for one in methods]
    study = find_study(name)
    setup, _, data = run_study(
        study,
        model,
        [benchmark],
        out,
        profile=profile,
        methods=made,
        options=options,
        batch_size=12,
    )
    return study, setup, data
