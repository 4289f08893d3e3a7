"""Whether rvelens is exact on a model: named checks, each passed, failed or not applicable.

`check` loads a model, wraps it, and compares what rvelens reads and edits with what the model computes,
on a random image or a given one. A broken model is caught by the name of a check.
"""

from rvelens.check.report import CheckLine, CheckReport
from rvelens.check.run import CHECKS, check
from rvelens.check.speed import Speed

__all__ = ["CHECKS", "CheckLine", "CheckReport", "Speed", "check"]
