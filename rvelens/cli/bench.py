"""`rvelens bench`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from rvelens import speed as measure
from rvelens.cli.common import Json, bar, emit_json, out
from rvelens.heads.layers import format_layers
from rvelens.speed import PLAIN, PLAIN_COMPILED, BenchResult
from rvelens.speed.memory import check_room
from rvelens.speed.results import Ratio, ScoringResult, SettingsResult, SharingResult
from rvelens.tables import Table


def bench(
    shape: Annotated[
        str,
        typer.Option(
            help=f"A LLaVA with random weights: {', '.join(measure.SHAPES)}; tiny is 8 layers x 768, "
            "some minutes on a CPU."
        ),
    ] = "tiny",
    runs: Annotated[
        int, typer.Option(min=1, help="Rounds; use 7 or more for results to publish.")
    ] = 7,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each generation.")] = 16,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is one")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's choice")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compiled/--no-compiled",
            help="Also time compiled generation with a static cache; a CPU needs a C++ compiler "
            "for it, and is slow.",
            show_default="on a GPU",
        ),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show a file of --json output; measure nothing."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print only the table of generation, as Markdown.")
    ] = False,
    json: Json = False,
) -> None:
    """Time generation with RVE against unhooked SDPA, count kernels, graph breaks and memory."""
    if show is not None:
        result = measure.read_result(show)
    else:
        if threads is not None:
            torch.set_num_threads(threads)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_room(0.0, device)  # whether it is there; how much it holds is seen with the shape
        options = {"runs": runs, "new_tokens": new_tokens, "device": device, "compiled": compiled}
        steps = lambda items, label: bar(label)(items)  # noqa: E731
        result = measure.run_bench(shape, progress=steps, **options)
    if json:
        emit_json(result)
    elif markdown:
        typer.echo(as_markdown(result))
    else:
        _print(result)


def _print(result: BenchResult) -> None:
    console = out()
    console.print(_generation(result))
    for note in _notes(result):
        console.print(note, highlight=False, markup=False)
    console.print(
        f"{result['shape']} on {result['device']} ({result['threads']} threads), {result['dtype']}: "
        f"prompt of {result['prompt_tokens']} tokens and {result['new_tokens']} generated, RVE in "
        f"layers {format_layers(result['rve_layers'])} of {result['layers']}, medians of "
        f"{result['runs']} interleaved rounds; ratios are taken within rounds.\n",
        highlight=False,
    )
    console.print(_memory(result))
    console.print(_sharing(result["sharing"]), highlight=False)
    console.print(_scoring(result["scoring"]), highlight=False)
    console.print(_settings(result["settings"]), highlight=False)


# Columns of the table of generation.
BENCH_COLUMNS = (
    "generation",
    "ratio",
    "quartiles",
    "kernels a token",
    "ratio of kernels",
    "graph breaks",
)


def _rows(result: BenchResult) -> list[tuple[str, ...]]:
    """A row for each setting; a cell of what was not measured is empty."""
    kernels = result.get("kernels", {})
    breaks = result.get("graph_breaks", {})
    rows = []
    for name in [*result["ratios"], *result["missing"]]:
        times = ("-", "")
        if name in result["ratios"]:
            low, high = result["quartiles"][name]
            times = (f"{result['ratios'][name]:.3f}x", f"{low:.3f} to {high:.3f}")
        counted = ("", "")
        if name in kernels:
            counted = (str(kernels[name]), f"{kernels[name] / kernels[PLAIN]:.3f}x")
        rows.append((name, *times, *counted, str(breaks.get(name, ""))))
    return rows


def _generation(result: BenchResult) -> Table:
    return Table("", BENCH_COLUMNS, _rows(result))


def as_markdown(result: BenchResult) -> str:
    """The table of generation as Markdown, as the README has it."""
    return _generation(result).to_markdown()


def _notes(result: BenchResult) -> Iterator[str]:
    """What the columns mean, and why a cell is empty."""
    seconds = result["seconds"]
    compiled = f", compiled {seconds[PLAIN_COMPILED]:.3f} s" if PLAIN_COMPILED in seconds else ""
    yield (
        f"\nRatio and quartiles: of time, to {PLAIN} in the same mode, which took "
        f"{seconds[PLAIN]:.3f} s{compiled}."
    )
    if result.get("kernels"):
        yield (
            "Kernels: operations of one decode step that are no views, behind a dynamic cache. Graph "
            "breaks: of one decode step compiled behind a static cache."
        )
    for name, reason in result["missing"].items():
        yield f"{name} was not timed: {reason}"
    for name, reason in result.get("uncounted", {}).items():
        yield f"Graph breaks of {name} were not counted: {reason}"


def _memory(result: BenchResult) -> Table:
    columns = ("ARS capture, all layers", "forward alone", "+ last row", "+ all rows", "kept")
    rows = [
        (f"{row['keys']} keys", *(_size(row[name]) for name in ("forward", "last", "all", "kept")))
        for row in result["capture"]
    ]
    return Table("", columns, rows)


def _sharing(result: SharingResult) -> str:
    rates = ", ".join(f"{name} {rate:.2f}" for name, rate in result["per_second"].items())
    return (
        f"\n{result['questions']} questions about an image, {result['answer_tokens']} tokens each, "
        f"questions a second: {rates}; {_ratio(result)}, "
        f"answers {'the same' if result['same_answers'] else 'NOT the same'}"
    )


def _scoring(result: ScoringResult) -> str:
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result["seconds"].items())
    return (
        f"\nARS of {result['pairs']} pairs, each with an image of its own, seconds: {times}; "
        f"{_ratio(result)}; scores up to "
        f"{result['largest_score']:.0e} differ by {result['largest_difference']:.0e} at most"
    )


def _settings(result: SettingsResult) -> str:
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result["seconds"].items())
    whole = f"; to plain generate {_ratio(result['whole'])}" if "whole" in result else ""
    return (
        f"\n{result['questions']} questions, {result['answer_tokens']} tokens each, answered under "
        f"{result['settings']} settings side by side, seconds: {times}; {_ratio(result)}{whole}, "
        f"answers {'the same as alone' if result['same_answers'] else 'NOT the same as alone'}"
    )


def _ratio(result: Ratio) -> str:
    low, high = result["quartiles"]
    counted = f", of arithmetic {result['arithmetic']:.2f}x" if "arithmetic" in result else ""
    return f"ratio {result['ratio']:.2f}x (quartiles {low:.2f} to {high:.2f}){counted}"


def _size(n_bytes: int) -> str:
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
