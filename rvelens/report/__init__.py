"""What a model does on action scenes: accuracy by group, ARS, localisation, RVE and its controls."""

from __future__ import annotations

from rvelens.report.build import Report, run
from rvelens.report.render import render, to_markdown

__all__ = ["Report", "render", "run", "to_markdown"]
