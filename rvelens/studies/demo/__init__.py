"""What a model does on action scenes: accuracy by group, ARS, localisation, RVE and its controls."""

from __future__ import annotations

from rvelens.studies.demo.build import DemoReport, run_demo
from rvelens.studies.demo.examples import Example, draw_examples, examples, examples_table
from rvelens.studies.demo.render import demo_to_markdown, render_demo

__all__ = [
    "DemoReport",
    "Example",
    "demo_to_markdown",
    "draw_examples",
    "examples",
    "examples_table",
    "render_demo",
    "run_demo",
]
