"""Open-ended answers beside the paper's Table 2."""

from rvelens.studies.open_ended.study import STUDY, exactly

__all__ = ["STUDY", "exactly"]
