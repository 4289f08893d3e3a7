"""Studies: the results of the paper, each by one command, beside what it printed."""

from __future__ import annotations

import difflib
from importlib import import_module

from rvelens.files.arguments import refuse_wrong_types
from rvelens.studies.kit.base import Batch, Setup, Shown, Study

__all__ = ["NAMES", "Batch", "Setup", "Shown", "Study", "find_study"]

# Each is a module of this package, with hyphens for underscores.
NAMES = (
    "imbalance",
    "ars-map",
    "attention-maps",
    "main-table",
    "open-ended",
    "ablation",
    "sweep",
    "masking",
    "latency",
    "object-vs-action",
    "cases",
    "localisation",
    "head-scores",
    "views",
    "patching",
    "tune",
)


@refuse_wrong_types
def find_study(name: str) -> Study:
    """A study by its name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"study {name!r}: expected one of {', '.join(NAMES)}; did you mean {near!r}?"
        )
    return import_module(f"rvelens.studies.{name.replace('-', '_')}").STUDY
