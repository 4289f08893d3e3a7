"""What of a benchmark is there, what is missing and what is malformed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvelens.benchmarks import load_benchmark


@dataclass(frozen=True)
class Check:
    """What `check_files` reports.

    Attributes:
        benchmark: its name.
        files: name of each annotation file that was read, with its SHA-256.
        questions: questions that can be asked once their images are there.
        published: questions in the published file; None where that is not known.
        truths: how many questions have the answer "yes", "no", or none as they are "open".
        groups: how many questions each group has.
        images: image files that the questions need, masks included.
        missing: those that are not there, in the order of the questions.
        problems: one line for each row that was left out, with its file and line or row.
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
        """Whether every row is well-formed, no row lacks and every image is there."""
        short = self.published is not None and self.questions < self.published
        return not (self.missing or self.problems or short)

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {
            **{name: _plain(value) for name, value in vars(self).items()},
            "complete": self.complete,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def check_files(name: str, data: str | Path | None = None) -> Check:
    """Look over a benchmark's files without opening an image.

    Args:
        name: one of `rvelens.benchmarks.BENCHMARKS`.
        data: the folder that holds its files; none for action scenes.

    Raises:
        ValueError: an unknown benchmark, a missing folder or annotation file, or one that cannot
            be read at all.
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
