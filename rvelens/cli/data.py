"""`rvelens data`: the files of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rvelens.benchmarks import BENCHMARKS
from rvelens.benchmarks.check import Check
from rvelens.benchmarks.check import check_files as look_over
from rvelens.cli.common import SHOWN, Json, emit_json, out, status

data = typer.Typer(help="Check the files of a benchmark.")


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
        check = look_over(benchmark, folder)
    if json:
        emit_json(check.to_json())
    else:
        _print(check)
    if not check.complete:
        raise typer.Exit(1)


def _print(check: Check) -> None:
    console = out()
    counts = ", ".join(f"{n} {answer}" for answer, n in check.truths.items())
    of = "" if check.published is None else f" of {check.published} published"
    _say(console, f"{check.benchmark}: {check.questions}{of} questions ({counts})")
    if check.groups:
        _say(console, "groups: " + ", ".join(f"{name} {n}" for name, n in check.groups.items()))
    for name, digest in check.files.items():
        _say(console, f"file {name}, SHA-256 {digest}")
    if check.images:
        _say(console, f"images: {check.images - len(check.missing)} of {check.images} are there")
    _list(console, "missing images", check.missing)
    _list(console, "malformed rows, left out", check.problems)


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
