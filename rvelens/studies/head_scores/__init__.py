"""Head scores side by side: which finds the region, costs most when masked, and helps RVE most.

- `profiles.py`: a profile by each score, and how many pairs it takes.
- `finding.py`: whether the heads that rank first look at the ground-truth region.
- `masking.py`: what masking them costs, against random heads of the same layers.
- `steering.py`: RVE by each ranking, and its controls: swapped heads, all heads, the true region.
- `gains.py`: what each gains, tuned on some photographs and reported on others.
- `study.py`: all of it, one row a score.
"""

from __future__ import annotations

from rvelens.studies.head_scores.study import STUDY

__all__ = ["STUDY"]
