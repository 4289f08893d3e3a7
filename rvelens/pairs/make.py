"""Makes a file of contrastive pairs from the questions of a file or a benchmark."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Benchmark
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import (
    append_lines,
    cut_torn_line,
    end_last_line,
    locked,
    parse_json,
    torn_line,
)
from rvelens.files.paths import path_below
from rvelens.pairs.ask_model import RequestFailedError
from rvelens.pairs.file import read_id, read_objects, read_pair_rows, text_of
from rvelens.pairs.find import NotMadeError
from rvelens.pairs.generate import Generator, ImageQuestion, Made
from rvelens.pairs.review import changing

# What each line that is written here begins with.
_LINE_BEGINS = b'{"id": "'


@dataclass(frozen=True)
class NotMade:
    """A question without a pair, and why; `failed` if a request failed, not the question."""

    id: str
    question: str
    reason: str
    failed: bool


@dataclass(frozen=True)
class MadePairs:
    """The result for questions: existing pairs, new pairs, and questions without a pair."""

    kept: int
    made: int
    not_made: tuple[NotMade, ...]


@refuse_wrong_types
def questions_of_file(path: str | Path, images: str | Path) -> list[ImageQuestion]:
    """Questions from JSON lines with "image" (a file below `images`) and "question" or "text".

    "question_id" or "id" names a question, else its line number. Other keys are ignored, so a file of
    pairs is also a file of questions.

    Raises:
        ValueError: a missing file or folder, no questions, a repeated id, or a malformed line, which
            the message names.
    """
    images = Path(images)
    if not images.is_dir():
        raise ValueError(
            f"no folder {images}: expected the folder with the images; check the path."
        )
    questions: dict[str, ImageQuestion] = {}
    for number, row in read_objects(path, "question"):
        try:
            image = text_of(row, "image")
            text = text_of(row, "question" if "question" in row or "text" not in row else "text")
            name = read_id(row, f"line {number}")
            file = path_below(images, image)
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
        if name in questions:
            raise ValueError(
                f"{path} line {number}: id {name!r} occurs twice: expected unique ids; rename one."
            )
        questions[name] = ImageQuestion(name, image, file, text)
    return list(questions.values())


@refuse_wrong_types
def questions_of_benchmark(benchmark: Benchmark, images: str | Path) -> list[ImageQuestion]:
    """The questions of a benchmark about unchanged image files, with paths below `images`.

    Raises:
        ValueError: its pictures are drawn or marked, or are in another folder.
    """
    folder = Path(images).resolve()
    questions = []
    for item in benchmark.items:
        # What is drawn upon an image is part of the picture's key, after a "#".
        if len(item.files) != 1 or "#" in item.image:
            raise ValueError(
                f"{benchmark.name} draws its pictures: expected a benchmark of image files, since "
                "a file of pairs names files; choose another."
            )
        path = item.files[0].resolve()
        if not path.is_relative_to(folder):
            raise ValueError(
                f"{path} is not below {folder}: expected the folder of all images; pass it as images "
                "(--images)."
            )
        name = path.relative_to(folder).as_posix()
        questions.append(ImageQuestion(item.id, name, path, item.text.strip()))
    return questions


def sample(questions: Sequence[ImageQuestion], limit: int, seed: int) -> list[ImageQuestion]:
    """A random sample of `limit` questions, in their order; all if there are fewer."""
    numbers = random.Random(seed).sample(range(len(questions)), min(limit, len(questions)))
    return [questions[n] for n in sorted(numbers)]


@refuse_wrong_types
def make_pairs(
    questions: Sequence[ImageQuestion],
    generate: Generator,
    path: str | Path,
    *,
    generator: str,
    concurrency: int = 1,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> MadePairs:
    """Add a pair for each question to a file; existing pairs and decisions are not changed.

    Each line has "id", "image", "question", "contrastive", "verb", "candidate", "generator",
    "attempts", "verdicts" and "decision" (null, until a review). A pair is written when it and all
    pairs before it are done. An interruption loses no written pair.

    Args:
        questions: the questions, with different ids.
        generate: `generate.by_lexicon` or `ask_model.by_model`.
        path: the file, created if needed.
        generator: the name of the generator to record.
        concurrency: the maximum number of questions at a time.
        progress: wraps the iterable of questions.

    Raises:
        ValueError: the file is not a file of pairs, has another question under an id, or is in use by
            another run.
        OSError: it cannot be written.
    """
    path = Path(path)
    with _alone(path):
        return _make(questions, generate, path, generator, concurrency, progress)


def _make(
    questions: Sequence[ImageQuestion],
    generate: Generator,
    path: Path,
    generator: str,
    concurrency: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> MadePairs:
    todo = _todo(questions, path)
    not_made: list[NotMade] = []
    pool = ThreadPoolExecutor(max_workers=concurrency)
    try:
        results = pool.map(lambda question: _try(generate, question), todo)
        for question in progress(todo):
            result = next(results)
            if isinstance(result, NotMade):
                not_made.append(result)
            else:
                _append(path, _row(question, result, generator))
    finally:
        pool.shutdown(cancel_futures=True)
    return MadePairs(len(questions) - len(todo), len(todo) - len(not_made), tuple(not_made))


def _alone(path: Path) -> AbstractContextManager[None]:
    """Refuse, before anything is asked or paid for, a file that cannot be written or that another
    run adds to; a review may change it all the same."""
    if not path.parent.is_dir():
        raise ValueError(f"no folder {path.parent}: expected one for {path.name}; make it first.")
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{path} is not a file: expected a file name for the pairs; choose another."
        )
    if path.exists():
        path.open("ab").close()
    return locked(path.with_name(f"{path.name}.making.lock"), path)


def _todo(questions: Sequence[ImageQuestion], path: Path) -> list[ImageQuestion]:
    """Questions that have no pair in the file yet."""
    stored = _read_stored(path)
    for question in questions:
        content = (question.image.strip(), question.text.strip())
        if stored.get(question.id, content) != content:
            raise ValueError(
                f"{path} has another question under id {question.id!r}: expected pairs of the same "
                "questions; choose another file."
            )
    return [question for question in questions if question.id not in stored]


def _read_stored(path: Path) -> dict[str, tuple[str, str]]:
    """Image and question of the pairs in a file by their ids; a line cut short is dropped first."""
    if not path.exists():
        return {}
    with changing(path):
        _mend(path)
    if not path.read_bytes().strip():
        return {}
    rows = [row for _, row in read_pair_rows(path)]
    return {row["id"]: (row["image"].strip(), row["question"].strip()) for row in rows}


def _mend(path: Path) -> None:
    """Drop a last line that an interruption cut short; of a file that was not made here, nothing."""
    content, last = path.read_bytes(), torn_line(path)
    if not last:
        return
    if _is_json(last):
        end_last_line(path)
    elif all(text.startswith(_LINE_BEGINS[: len(text)]) for text in (content, last)):
        cut_torn_line(path)


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _try(generate: Generator, question: ImageQuestion) -> Made | NotMade:
    try:
        if not _is_file(question.path):
            raise NotMadeError("its image does not exist")
        return generate(question)
    except NotMadeError as error:
        failed = isinstance(error, RequestFailedError)
        return NotMade(question.id, question.text, str(error), failed)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _row(question: ImageQuestion, made: Made, generator: str) -> dict[str, Any]:
    row = {"id": question.id, "image": question.image, "question": question.text}
    rest = asdict(made)
    return row | {
        "contrastive": rest.pop("contrastive"),
        "verb": rest.pop("verb"),
        "candidate": rest.pop("candidate"),
        "generator": generator,
        **rest,
        "decision": None,
    }


def _append(path: Path, row: dict[str, Any]) -> None:
    with changing(path):
        append_lines(path, [row])
