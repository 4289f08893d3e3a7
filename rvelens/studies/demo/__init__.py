"""What a model does on action scenes: accuracy by group, ARS, localisation, RVE and its controls."""

from __future__ import annotations

from rvelens.studies.demo.build import Report, run
from rvelens.studies.demo.examples import Example, examples, examples_table, pictures
from rvelens.studies.demo.render import render, to_markdown

__all__ = [
    "Example",
    "Report",
    "examples",
    "examples_table",
    "pictures",
    "render",
    "run",
    "to_markdown",
]
