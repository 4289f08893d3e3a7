"""What the tests of studies share: models, a few questions, and runs that stop in the middle."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.rules import strict
from rvelens.evaluate import Decoding
from rvelens.interventions.methods import make_method
from rvelens.studies import find_study
from rvelens.studies.kit.run import run_study

SHORT = Decoding(max_new_tokens=3)


class StoppedError(Exception):
    """In place of a kill: it is caught by nobody on the way."""


def stop_after(n):
    """A progress that ends a run after `n` batches."""

    def progress(items, label):
        nonlocal n
        for item in items:
            if not n:
                raise StoppedError
            n -= 1
            yield item

    return progress


def count(seen):
    """A progress that writes down each batch that is computed."""

    def progress(items, label):
        for item in items:
            seen.append(label)
            yield item

    return progress


def hooked(family):
    """A tiny random model and a random profile of it."""
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor, family=family)
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(0))
    return model, ARSProfile.from_scores(scores)


def questions(n=6, name="some", truth=lambda k: k % 2 == 0, **changes):
    """Yes/no questions about the pictures of the tiny models."""
    items = tuple(
        Item(f"q{k}", f"i{k % 3}", f"i{k % 3}", QUESTIONS[k % 3], truth(k), None, "ab"[k % 2],
             lambda k=k: IMAGES[k % 3].copy(), ())
        for k in range(n)
    )  # fmt: skip
    return replace(Benchmark(name, items, (), strict, {}), **changes)


def unreadable() -> Image.Image:
    raise ValueError("no image\nhere.")


def measure(name, model, benchmarks, out, profile=None, methods=("vanilla",), **options):
    """Run a study with methods by name; returns setup, manifest, measured."""
    made = [make_method(m, model, profile if m == "rve" else None) for m in methods]
    settings = {"decoding": SHORT, "batch_size": 4, **options}
    return run_study(
        find_study(name), model, benchmarks, out, profile=profile, methods=made, **settings
    )
