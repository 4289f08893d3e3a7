"""What each head and the true region carry of an answer, by activation patching.

- `units.py`: the patches of each pair of runs.
- `study.py`: all pairs together, with intervals, beside ARS.
- `render.py`: tables, maps, and what is confirmed.
"""

from __future__ import annotations

from rvelens.studies.patching.study import STUDY

__all__ = ["STUDY"]
