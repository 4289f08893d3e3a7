"""What a model does on action scenes: accuracy by group, ARS, localisation, RVE and its controls."""

from __future__ import annotations

from rvelens.report.build import Report, run
from rvelens.report.examples import Example, examples, examples_table, pictures
from rvelens.report.render import render, to_markdown

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
