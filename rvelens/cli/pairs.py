"""`rvelens pairs`: contrastive pairs, made from questions and reviewed by a person."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rvelens.benchmarks import BENCHMARKS, RELATIONS, load_benchmark
from rvelens.cli.common import SHOWN, Json, bar, emit_json, out
from rvelens.files.paths import check_new_folder
from rvelens.files.wording import counted
from rvelens.judge.endpoint import Endpoint, connect
from rvelens.pairs import find, review
from rvelens.pairs.ask_model import by_model
from rvelens.pairs.generate import MAX_ATTEMPTS, ImageQuestion, by_lexicon
from rvelens.pairs.make import (
    MadePairs,
    make_pairs,
    questions_of_benchmark,
    questions_of_file,
    sample,
)

pairs = typer.Typer(help="Make contrastive pairs from questions, and review them.")


class VerbSource(StrEnum):
    """Where candidate verbs come from."""

    lexicon = "lexicon"
    llm = "llm"


@pairs.callback()
def _group() -> None:
    """Make contrastive pairs from questions, and review them."""


@pairs.command()
def make(
    images: Annotated[Path, typer.Option(help="The folder that holds the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file of pairs, JSON lines.")],
    questions: Annotated[
        Path | None, typer.Argument(help='JSON lines: "image", "question", and "id" if it has one.')
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help=f"Instead of a file: {', '.join(BENCHMARKS)}.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The benchmark's folder.")] = None,
    relation: Annotated[str, typer.Option(help=f"Of a benchmark: {', '.join(RELATIONS)}.")] = "all",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use a random sample of this many questions.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the sample and of the lexicon's choice.")
    ] = 55,
    generator: Annotated[
        VerbSource,
        typer.Option(help="A table of verbs, offline, or a vision model at an endpoint."),
    ] = VerbSource.lexicon,
    verb: Annotated[int, typer.Option(min=1, help="The verb to change, if there are several.")] = 1,
    spacy: Annotated[
        str | None,
        typer.Option(help="Find verbs with this spaCy pipeline, such as en_core_web_sm."),
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, help="Candidates for each question, at most.")
    ] = MAX_ATTEMPTS,
    model: Annotated[
        str | None,
        typer.Option(envvar="RVELENS_PAIRS_MODEL", help="The model for llm, such as gpt-5."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL",
            help="For llm, an OpenAI-compatible endpoint; the key is read only from OPENAI_API_KEY.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=("Sampling temperature; not sent by default, since some models refuse it."),
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="A folder that stores replies, so that none is paid twice.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Questions at the same time, for llm.")
    ] = 4,
    json: Json = False,
) -> None:
    """Turn questions into contrastive pairs, whose verbs need different body parts.

    What the file holds already stays, and is not made again. Questions without a pair are reported
    with the reason; exit code 1 if a request failed in the end.
    """
    Endpoint(model or "", base_url, temperature)  # refuses what cannot be, needed or not
    if cache is not None:
        check_new_folder(cache)
    image_questions = _questions(questions, images, benchmark, data, relation)
    if questions is not None and output.exists() and output.samefile(questions):
        raise ValueError(
            f"--output {output} is the file of questions: expected another; choose one."
        )
    if limit is not None:
        image_questions = sample(image_questions, limit, seed)
    finder = find.by_rules if spacy is None else find.by_spacy(find.load_spacy(spacy))
    if generator is VerbSource.lexicon:
        source = by_lexicon(seed=seed, finder=finder, number=verb, attempts=attempts)
        report = make_pairs(
            image_questions, source, output, generator=str(generator), progress=bar("questions")
        )
    else:
        endpoint = _endpoint(model, base_url, temperature)
        with connect(endpoint) as ask:
            source = by_model(
                ask, endpoint, finder=finder, number=verb, attempts=attempts, cache_dir=cache
            )
            report = make_pairs(
                image_questions,
                source,
                output,
                generator=f"llm:{endpoint.model}",
                concurrency=concurrency,
                progress=bar("questions"),
            )
    _show(report, output, json)
    if any(reason.failed for reason in report.not_made):
        raise typer.Exit(1)


def _questions(
    questions: Path | None,
    images: Path,
    benchmark: str | None,
    data: Path | None,
    relation: str,
) -> list[ImageQuestion]:
    if (questions is None) == (benchmark is None):
        raise ValueError(
            "both a file of questions and --benchmark are given: expected only one; leave one out."
            if questions
            else "no questions are given: expected a file or --benchmark NAME; see --help."
        )
    if questions is not None:
        if data is not None or relation != "all":
            raise ValueError(
                "--data or --relation with a file of questions: expected them only with "
                "--benchmark; leave them out."
            )
        return questions_of_file(questions, images)
    assert benchmark is not None
    return questions_of_benchmark(load_benchmark(benchmark, data).of_relation(relation), images)


def _endpoint(model: str | None, base_url: str | None, temperature: float | None) -> Endpoint:
    if model is None or not model.strip():
        raise ValueError(
            "--generator llm without a model: expected --model NAME, or RVELENS_PAIRS_MODEL; "
            "set one of them."
        )
    return Endpoint(model, base_url, temperature)


def _show(report: MadePairs, output: Path, json: bool) -> None:
    if json:
        emit_json({**asdict(report), "pairs": str(output)})
        return
    _say(f"{counted(report.made, 'pair')} made, {report.kept} were there, in {output}")
    if report.not_made:
        _say(f"{counted(len(report.not_made), 'question')} without a pair:")
    for reason, count in Counter(failure.reason for failure in report.not_made).most_common(SHOWN):
        _say(f"  {count} x {reason}")


@pairs.command("review")
def review_pairs(
    path: Annotated[Path, typer.Argument(metavar="PAIRS", help="The file of pairs.")],
) -> None:
    """Accept, edit or reject pairs one by one; each decision is saved at once.

    Skipped pairs are shown again the next time.
    """
    rows = review.read_reviewed(path)
    waiting = review.pending(rows)
    with contextlib.suppress(EOFError, typer.Abort):
        for number, row in enumerate(waiting, start=1):
            _say(f"\n{number} of {len(waiting)}: {row['id']}, {row['image']}")
            for line in _marked(row):
                out().print(line, soft_wrap=True)
            if not _review(path, row):
                break
    counts = Counter(row["decision"] or "waiting" for row in review.read_reviewed(path))
    _say(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def _review(path: Path, row: review.ReviewRow) -> bool:
    """Ask until there is a decision or none is wanted; false to stop."""
    while True:
        typed = typer.prompt("[a]ccept, [e]dit, [r]eject, [s]kip, [q]uit", default="s")
        choice = typed.strip().lower()[:1]
        if choice in ("s", "q"):
            return choice == "s"
        try:
            if choice == "e":
                review.decide(path, row["id"], "edit", _edited(row))
                return True
            if choice in ("a", "r"):
                review.decide(path, row["id"], "accept" if choice == "a" else "reject")
                return True
        except ValueError as error:
            _say(str(error))


def _edited(row: review.ReviewRow) -> str:
    """One word takes the verb's place; more are the whole text."""
    text = typer.prompt("the verb as it is to stand there, or the whole text").strip()
    spans = review.marks(row)
    if spans is None or len(text.split()) > 1:
        return text
    start, end = spans[0]
    return row["question"][:start] + text + row["question"][end:]


def _marked(row: review.ReviewRow) -> Iterator[Text]:
    spans = review.marks(row) or (None, None)
    for text, span in zip((row["question"], row["contrastive"]), spans, strict=True):
        line = Text(f"  {text}")
        if span is not None:
            # In brackets too: a terminal may have no bold.
            start, end = span
            line = Text.assemble("  ", text[:start], (f"[{text[start:end]}]", "bold"), text[end:])
        yield line


def _say(line: str) -> None:
    out().print(line, markup=False, highlight=False, soft_wrap=True)
