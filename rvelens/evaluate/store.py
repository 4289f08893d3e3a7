"""Answers as JSON lines, appended as they come; written answers survive a `kill -9`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Item
from rvelens.benchmarks.files import sha256
from rvelens.evaluate.answering import Answer
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import Line, append_lines, read_lines
from rvelens.files.stored import MANIFEST, MalformedError, Stored, answer_files, checked


def answers_file(folder: Path, rank: int) -> Path:
    """The file that a process appends to; each process has its own."""
    return folder / ("answers.jsonl" if rank == 0 else f"answers-{rank}.jsonl")


@dataclass(frozen=True)
class AnswerFile:
    """A process's file of answers to the questions of a run.

    Attributes:
        path: where answers are appended.
        answers: the answers so far, of every process, by question id.
    """

    path: Path
    answers: Mapping[str, Answer]

    def lacks(self, items: Sequence[Item]) -> bool:
        """Whether some question has no answer; one that could not be asked is tried again."""
        return any(not self._has(item) for item in items)

    def add(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        """Append the answers that are new."""
        new = [
            (item, answer)
            for item, answer in zip(items, answers, strict=True)
            if not self._has(item) and self.answers.get(item.id) != answer
        ]
        append(self.path, [item for item, _ in new], [answer for _, answer in new])

    def _has(self, item: Item) -> bool:
        answer = self.answers.get(item.id)
        return answer is not None and answer.error is None


def append(path: Path, items: Sequence[Item], answers: Sequence[Answer]) -> None:
    """Append a batch of answers, each with its question, in one write."""
    append_lines(path, [_row(item, answer) for item, answer in zip(items, answers, strict=True)])


def _row(item: Item, answer: Answer) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id, "image": item.image, "question": item.text}
    if item.group:
        row["group"] = item.group
    if item.truth is not None:
        row["truth"] = item.label
    if item.reference is not None:
        row["reference"] = item.reference
    row["answer"] = answer.text
    files = files_digest(item) if answer.error is None else None
    rest = (("margin", answer.margin), ("error", answer.error), ("files", files))
    return row | {k: v for k, v in rest if v is not None}


def files_digest(item: Item) -> str | None:
    """SHA-256 of the files of a question's picture; None if it has none, or if one is missing."""
    digest = hashlib.sha256()
    try:
        for path in item.files:
            about = path.stat()
            digest.update(_sha256(path, about.st_mtime_ns, about.st_size).encode())
    except OSError:
        return None
    return digest.hexdigest() if item.files else None


@lru_cache(maxsize=65536)
def _sha256(path: Path, time: int, size: int) -> str:
    """Of a file, read once as long as its time and size stay."""
    return sha256(path)


def refuse_changed(folder: Path, items: Sequence[Item], answers: Mapping[str, Answer]) -> None:
    """Raise ValueError if a picture has changed since its question was answered."""
    for item in items:
        answer = answers.get(item.id)
        here = files_digest(item) if answer is not None and answer.files is not None else None
        if answer is not None and here is not None and here != answer.files:
            raise ValueError(
                f"{folder} holds an answer about {item.files[0]}, which was changed afterwards: "
                "expected the same file; restore it, or choose another folder."
            )


def stored_answers(folder: Path, items: Sequence[Item]) -> dict[str, Answer]:
    """The stored answers to some questions, by their ids.

    Lines about other questions, or with another text under a known id, are ignored. The first answer to
    a question counts. An error counts until there is an answer.

    Raises:
        ValueError: a complete line that is not an answer.
    """
    texts = {item.id: item.text for item in items}
    return _first_of_each(answer for text, answer in _lines(folder) if texts.get(answer.id) == text)


@refuse_wrong_types
def load_answers(run: str | Path, benchmark: str, method: str) -> dict[str, Answer]:
    """The answers of a run by question id, in the order of the answers.

    If a question could not be asked, its answer has an error.

    Args:
        run: `out` of `evaluate`, `--out` of `rvelens eval`.
        benchmark: the name of the benchmark.
        method: the name of the method.

    Raises:
        ValueError: the run has no such answers, or a complete line that is not an answer.
    """
    folder = Path(run) / benchmark / method
    if not (folder / MANIFEST).is_file():
        folders = sorted(
            p.parent.relative_to(run).as_posix() for p in Path(run).glob(f"*/*/{MANIFEST}")
        )
        raise ValueError(
            f"no answers to {benchmark} under {method} in {run}: expected the folder of a run with "
            f"BENCHMARK/METHOD in it; {_advice(folders)}."
        )
    return _first_of_each(answer for _, answer in _lines(folder))


def _advice(folders: Sequence[str]) -> str:
    return f"name one that it holds, of {', '.join(folders)}" if folders else "check the path"


def _first_of_each(answers: Iterable[Answer]) -> dict[str, Answer]:
    first: dict[str, Answer] = {}
    for answer in answers:
        earlier = first.get(answer.id)
        if earlier is None or earlier.error:
            first[answer.id] = answer
    return first


def _lines(folder: Path) -> Iterator[tuple[str, Answer]]:
    """Questions and answers of every process."""
    return map(_answer, answer_lines(folder))


def answer_lines(folder: Path) -> Iterator[Line]:
    """The complete lines of all files of answers that the run's manifest names."""
    for path in answer_files(folder):
        yield from read_lines(path, drop_torn=True)


class _StoredAnswer(Stored):
    """A line of a file of answers; either `answer` or `error` is a text."""

    id: str
    question: str
    answer: str | None
    margin: float | None = None
    error: str | None = None
    files: str | None = None


def _answer(line: Line) -> tuple[str, Answer]:
    """The question and the answer of a line."""
    try:
        row = checked(line.value(), _StoredAnswer)
        if row.answer is None and row.error is None:
            raise MalformedError("neither answer nor error")
    except ValueError as error:
        raise ValueError(
            f"{line} is a malformed answer: expected a JSON object with id, question and answer; "
            "delete the line to re-run the question."
        ) from error
    return row.question, Answer(row.id, row.answer, row.margin, row.error, row.files)
