"""Tables 1, 3 and 4: methods on benchmarks and models."""

from __future__ import annotations

from rvelens.studies.main_table.study import STUDY

__all__ = ["STUDY"]
