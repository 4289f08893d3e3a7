"""Answers as JSON lines, appended as they come; what was written survives a `kill -9`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Item
from rvelens.evaluate.answering import Answer
from rvelens.files import Line, append_lines, read_lines


def answers_file(folder: Path, rank: int) -> Path:
    """Where a process appends; one file each, since two must not write to one."""
    return folder / ("answers.jsonl" if rank == 0 else f"answers-{rank}.jsonl")


@dataclass(frozen=True)
class AnswerFile:
    """A process' file of answers to the questions of a run.

    Attributes:
        path: where answers are appended.
        known: the answers so far, of every process, by question id.
    """

    path: Path
    known: Mapping[str, Answer]

    def lacks(self, items: Sequence[Item]) -> bool:
        """Whether some question has no answer; what could not be asked is tried again."""
        return any(not self._has(item) for item in items)

    def add(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        """Append the answers that are news."""
        new = [
            (item, said)
            for item, said in zip(items, answers, strict=True)
            if not self._has(item) and self.known.get(item.id) != said
        ]
        append(self.path, [item for item, _ in new], [said for _, said in new])

    def _has(self, item: Item) -> bool:
        said = self.known.get(item.id)
        return said is not None and said.error is None


def append(path: Path, items: Sequence[Item], answers: Sequence[Answer]) -> None:
    """Add a batch of answers in one write, each with its question, to be read without more."""
    append_lines(path, [_row(item, said) for item, said in zip(items, answers, strict=True)])


def _row(item: Item, said: Answer) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id, "image": item.image, "question": item.text}
    if item.group:
        row["group"] = item.group
    if item.truth is not None:
        row["truth"] = "yes" if item.truth else "no"
    if item.reference is not None:
        row["reference"] = item.reference
    row["answer"] = said.text
    return row | {
        k: v for k, v in (("margin", said.margin), ("error", said.error)) if v is not None
    }


def read(folder: Path, items: Sequence[Item]) -> dict[str, Answer]:
    """The answers so far to some questions, by their ids.

    Lines about other questions, or with another text under a known id, are left aside. The first
    answer to a question counts; an error counts until there is an answer.

    Raises:
        ValueError: a whole line that is not an answer.
    """
    asked = {item.id: item.text for item in items}
    return _first_of_each(said for text, said in _lines(folder) if asked.get(said.id) == text)


def load_answers(run: str | Path, benchmark: str, method: str) -> dict[str, Answer]:
    """The answers of a run by question id, in the order in which they were given.

    What could not be asked is an answer with an error.

    Args:
        run: `out` of `evaluate`, `--out` of `rvelens eval`.
        benchmark: its name.
        method: its name.

    Raises:
        ValueError: the run has no such answers, or a whole line that is not an answer.
    """
    folder = Path(run) / benchmark / method
    if not folder.is_dir():
        there = [p.relative_to(run).as_posix() for p in sorted(Path(run).glob("*/*")) if p.is_dir()]
        raise ValueError(
            f"no answers to {benchmark} under {method} in {run}: expected the folder of a run with "
            f"BENCHMARK/METHOD in it; it holds {', '.join(there) or 'none'}."
        )
    return _first_of_each(said for _, said in _lines(folder))


def _first_of_each(answers: Iterable[Answer]) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for said in answers:
        known = found.get(said.id)
        if known is None or known.error:
            found[said.id] = said
    return found


def _lines(folder: Path) -> Iterator[tuple[str, Answer]]:
    """Questions and answers of every process."""
    return map(_answer, answer_lines(folder))


def answer_lines(folder: Path) -> Iterator[Line]:
    """The whole lines of every process' file of answers."""
    for path in sorted(folder.glob("answers*.jsonl")):
        yield from read_lines(path, drop_torn=True)


def _answer(line: Line) -> tuple[str, Answer]:
    """The question and the answer of a line."""
    try:
        row: Mapping[str, Any] = line.value()
        question = row["question"]
        said = Answer(row["id"], row["answer"], row.get("margin"), row.get("error"))
    except (ValueError, KeyError, TypeError, AttributeError):
        question, said = None, Answer("")
    margin, error = said.margin, said.error
    fits = isinstance(question, str) and isinstance(said.id, str)
    fits &= isinstance(said.text if error is None else error, str)
    if not fits or not isinstance(margin, int | float | None):
        raise ValueError(
            f"{line} is no answer of a run: expected a JSON object with id, question and answer; "
            "remove the line to have the question asked again."
        )
    return str(question), said
