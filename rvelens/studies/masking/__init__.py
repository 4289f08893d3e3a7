"""Figure 9a: what masking sensitive, insensitive and random heads costs."""

from __future__ import annotations

from rvelens.studies.masking.study import STUDY

__all__ = ["STUDY"]
