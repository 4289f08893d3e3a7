"""`rvelens data`: the files of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rvelens.benchmarks import BENCHMARKS
from rvelens.benchmarks.check import Check
from rvelens.benchmarks.check import check_files as look_over
from rvelens.cli.common import Json, emit_json, out, status

data = typer.Typer(help="Check the files of a benchmark.")
SHOWN = 5


@data.callback()
def _group() -> None:
    """Check the files of a benchmark."""


@data.command("check")
def check_data(
    benchmark: Annotated[str, typer.Option(help=f"{', '.join(BENCHMARKS)}.")],
    folder: Annotated[
        Path | None,
        typer.Option("--data", help="The folder with its files; action scenes have none."),
    ] = None,
    json: Json = False,
) -> None:
    """List the files of a benchmark that exist, are missing or are malformed.

    Exit code 1 if the benchmark is not complete, 2 if there is no annotation file.
    """
    with status(f"looking over {benchmark}"):
        found = look_over(benchmark, folder)
    if json:
        emit_json(found.to_json())
    else:
        _print(found)
    if not found.complete:
        raise typer.Exit(1)


def _print(found: Check) -> None:
    console = out()
    counts = ", ".join(f"{n} {answer}" for answer, n in found.truths.items())
    of = "" if found.published is None else f" of {found.published} published"
    _say(console, f"{found.benchmark}: {found.questions}{of} questions ({counts})")
    if found.groups:
        _say(console, "groups: " + ", ".join(f"{name} {n}" for name, n in found.groups.items()))
    for name, digest in found.files.items():
        _say(console, f"file {name}, SHA-256 {digest}")
    if found.images:
        _say(console, f"images: {found.images - len(found.missing)} of {found.images} are there")
    _list(console, "missing images", found.missing)
    _list(console, "malformed rows, left out", found.problems)


def _list(console: Console, title: str, names: tuple[str, ...]) -> None:
    """How many, and the first few."""
    if not names:
        return
    _say(console, f"{title}: {len(names)}")
    for name in names[:SHOWN]:
        _say(console, f"  {name}")
    if len(names) > SHOWN:
        _say(console, f"  and {len(names) - SHOWN} more (--json lists them all)")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
