"""`rvelens bench`."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from rvelens import bench as measure
from rvelens.cli.common import Json, bar, emit_json, out
from rvelens.layers import format_layers


def bench(
    shape: Annotated[
        str,
        typer.Option(
            help=f"A LLaVA with random weights: {', '.join(measure.SHAPES)}; tiny is 8 layers x 768, "
            "some minutes on a CPU."
        ),
    ] = "tiny",
    runs: Annotated[int, typer.Option(min=1, help="Rounds; 7 for figures to be quoted.")] = 7,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens each generation adds.")] = 16,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is one")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's choice")
    ] = None,
    json: Json = False,
) -> None:
    """Time generation with RVE against unhooked SDPA, and count the memory of an ARS capture."""
    if threads is not None:
        torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    result = measure.run(
        shape, runs=runs, new_tokens=new_tokens, device=device, progress=bar("rounds")
    )
    if json:
        emit_json(result)
        return
    console = out()
    console.print(_speed(result))
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


def _speed(result: dict[str, Any]) -> Table:
    table = Table("generation", "seconds", "ratio", "quartiles", box=None)
    for name, seconds in result["seconds"].items():
        low, high = result["quartiles"][name]
        table.add_row(
            name, f"{seconds:.3f}", f"{result['ratios'][name]:.3f}x", f"{low:.3f} to {high:.3f}"
        )
    for name, reason in result["missing"].items():
        table.add_row(name, "-", "-", reason)
    return table


def _memory(result: dict[str, Any]) -> Table:
    table = Table(
        "ARS capture, all layers", "forward alone", "+ last row", "+ all rows", "kept", box=None
    )
    for row in result["capture"]:
        sizes = (_size(row[name]) for name in ("forward", "last", "all", "kept"))
        table.add_row(f"{row['keys']} keys", *sizes)
    return table


def _sharing(result: dict[str, Any]) -> str:
    rates = ", ".join(f"{way} {rate:.2f}" for way, rate in result["per_second"].items())
    return (
        f"\n{result['questions']} questions about an image, {result['answer_tokens']} tokens each, "
        f"questions a second: {rates}; {_ratio(result)}, "
        f"answers {'the same' if result['same_answers'] else 'NOT the same'}"
    )


def _scoring(result: dict[str, Any]) -> str:
    times = ", ".join(f"{way} {seconds:.3f}" for way, seconds in result["seconds"].items())
    return (
        f"\nARS of {result['pairs']} pairs, each with an image of its own, seconds: {times}; "
        f"{_ratio(result)}; scores up to "
        f"{result['largest_score']:.0e} differ by {result['largest_difference']:.0e} at most"
    )


def _settings(result: dict[str, Any]) -> str:
    times = ", ".join(f"{way} {seconds:.3f}" for way, seconds in result["seconds"].items())
    return (
        f"\n{result['questions']} questions, {result['answer_tokens']} tokens each, answered under "
        f"{result['settings']} settings side by side, seconds: {times}; {_ratio(result)}, answers "
        f"{'the same as alone' if result['same_answers'] else 'NOT the same as alone'}"
    )


def _ratio(result: dict[str, Any]) -> str:
    low, high = result["quartiles"]
    return f"ratio {result['ratio']:.2f}x (quartiles {low:.2f} to {high:.2f})"


def _size(n_bytes: int) -> str:
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
