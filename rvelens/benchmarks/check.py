"""Checks which files of a benchmark exist, which are missing, and which rows are malformed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvelens.benchmarks import load_benchmark


@dataclass(frozen=True)
class Check:
    """The result of `check_files`.

    Attributes:
        benchmark: the name of the benchmark.
        files: the name of each annotation file that was read, with its SHA-256.
        questions: the number of questions that can be asked if their images exist.
        published: the number of questions in the published file; None if unknown.
        truths: the number of questions with the answer "yes" and "no", and of "open" questions.
        groups: the number of questions in each group.
        images: the number of image files that the questions need, masks included.
        missing: the missing image files, in the order of the questions.
        problems: one message for each row that was left out, with its file and line or row.
    """

    benchmark: str
    files: Mapping[str, str]
    questions: int
    published: int | None
    truths: Mapping[str, int]
    groups: Mapping[str, int]
    images: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every row is well-formed, no row is missing, and every image exists."""
        short = self.published is not None and self.questions < self.published
        return not (self.missing or self.problems or short)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            **{name: _plain(value) for name, value in vars(self).items()},
            "complete": self.complete,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def check_files(name: str, data: str | Path | None = None) -> Check:
    """Check the files of a benchmark without opening an image.

    Args:
        name: one of `rvelens.benchmarks.BENCHMARKS`.
        data: the folder with its files; not needed for action scenes.

    Raises:
        ValueError: an unknown benchmark, a missing folder, or an annotation file that is missing or
            cannot be read at all.
    """
    benchmark = load_benchmark(name, data)
    needed = dict.fromkeys(path for item in benchmark.items for path in item.files)
    missing = [path for path in needed if not path.is_file()]
    root = Path() if data is None else Path(data)
    answers = {True: "yes", False: "no", None: "open"}
    return Check(
        benchmark=name,
        files=benchmark.files,
        questions=len(benchmark.items),
        published=benchmark.published,
        truths=Counter(answers[item.truth] for item in benchmark.items),
        groups=Counter(item.group for item in benchmark.items if item.group),
        images=len(needed),
        missing=tuple(path.relative_to(root).as_posix() for path in missing),
        problems=benchmark.problems,
    )
