"""Figures 13 to 17: questions whose answer a method flips, as one page."""

from __future__ import annotations

from rvelens.studies.cases.study import STUDY

__all__ = ["STUDY"]
