"""Benchmarks run with several methods under equal conditions, and every answer is stored.

- `answering.py`: answers batches of questions with a method.
- `manifest.py`: the conditions of a run, written before the first answer.
- `store.py`: answers as JSON lines, which survive an interruption.
- `scoring.py`: metrics with intervals, and paired comparisons of methods.
- `run.py`: all of these together, in one process or several.
- `render.py`: the tables.
- `opened.py`: a run's folder read back; `flips.py`: the questions whose answer a method flipped.
- `capture/`: tensors of hook points for many questions, on disk.
"""

from __future__ import annotations

from rvelens.evaluate.answering import Answer, Decoding, answer
from rvelens.evaluate.render import render_report, to_markdown
from rvelens.evaluate.run import evaluate
from rvelens.evaluate.scoring import score
from rvelens.evaluate.store import load_answers

__all__ = [
    "Answer",
    "Decoding",
    "answer",
    "evaluate",
    "load_answers",
    "render_report",
    "score",
    "to_markdown",
]
