"""One's own questions on the command line: their options, and one line about what was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rvelens.benchmarks import Benchmark
from rvelens.benchmarks.own import COLUMNS, ON_COMMAND_LINE, RULES, describe_source, read_questions
from rvelens.cli.common import SHOWN, warn
from rvelens.files.wording import counted

Questions = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Your own: .csv, .json, .jsonl, .parquet, or OWNER/NAME:SPLIT of a dataset on the Hub.",
    ),
]
ImagesFolder = Annotated[Path | None, typer.Option(help="The folder of the images of --questions.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN",
        help=f"Of --questions, where {', '.join(COLUMNS)} are called otherwise; repeatable.",
    ),
]
RuleName = Annotated[
    str | None,
    typer.Option(
        help=f"What reads the answers to --questions: {', '.join(RULES)}.", show_default="auto"
    ),
]


def own_questions(
    questions: str | None,
    images: Path | None,
    columns: Sequence[str] | None,
    rule: str | None,
    limit: int | None = None,
) -> list[Benchmark]:
    """The benchmark of `--questions`, if that was given.

    Raises:
        ValueError: other options of it without `--questions`, or what `read_questions` refuses.
    """
    if questions is None:
        others = {"--images": images, "--column": columns, "--rule": rule}
        for option, value in others.items():
            if value:
                raise ValueError(
                    f"{option} without --questions: expected the questions that it is about; name "
                    "their file."
                )
        return []
    benchmark = read_questions(
        questions,
        images,
        columns=_columns(columns or []),
        rule=rule or "auto",
        spelling=ON_COMMAND_LINE,
    )
    return [benchmark if limit is None else benchmark.sample(limit)]


def refuse_without_benchmark(benchmark: Sequence[str] | None, **options: object) -> None:
    """Raise ValueError for options of published benchmarks where only --questions is given."""
    for name, value in options.items():
        if value is not None and not benchmark:
            raise ValueError(
                f"--{name} with --questions alone: expected it for a published benchmark; leave it "
                "out, or add --benchmark."
            )


def _columns(texts: Sequence[str]) -> dict[str, str]:
    """NAME=COLUMN as a mapping."""
    for text in texts:
        name, equals, column = text.partition("=")
        if not (name and equals and column):
            raise ValueError(f"--column {text}: expected NAME=COLUMN; write it as in label=answer.")
    return {name: column for name, _, column in (text.partition("=") for text in texts)}


def print_sources(benchmarks: Sequence[Benchmark]) -> None:
    """Print to stderr what was read, the rule for the answers, and rows that were left out."""
    for benchmark in benchmarks:
        warn(describe_source(benchmark))
        for problem in benchmark.problems[:SHOWN]:
            warn(f"left out: {problem}")
        if len(benchmark.problems) > SHOWN:
            more = len(benchmark.problems) - SHOWN
            lists = "lists them" if more > 1 else "lists it"
            warn(f"left out: {counted(more, 'more row')}; report.json of the run {lists}")
