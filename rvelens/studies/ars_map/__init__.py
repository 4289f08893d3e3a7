"""Figure 5: which heads are sensitive to the verb, how surely, and which rankings agree."""

from __future__ import annotations

from rvelens.studies.ars_map.study import STUDY

__all__ = ["STUDY"]
