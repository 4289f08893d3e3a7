"""`rvelens check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvelens.cli.common import (
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Model,
    check_model_options,
    emit_json,
    out,
    status,
)

_WIDTH = 80


def check_command(
    model: Model,
    image: Annotated[
        Path | None, typer.Option(help="A picture.", show_default="a random one")
    ] = None,
    question: Annotated[
        str, typer.Option(help="The question about it.")
    ] = "Is there a person in this image?",
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    speed: Annotated[bool, typer.Option(help="Also measure time and memory.")] = True,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compiled/--no-compiled",
            help="Also time compiled steps with a static cache.",
            show_default="on a GPU",
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown block for an issue.")
    ] = False,
    json: Json = False,
) -> None:
    """Check that rvelens is exact on a model, line by line; exit code 1 if a line failed."""
    from rvelens.check import check as run
    from rvelens.model.prompts import load_image

    check_model_options(model, family, device_map)
    if image is not None:
        load_image(image)
    with status(f"checking {model}"):
        report = run(
            model,
            image=image,
            question=question,
            family=family,
            dtype=dtype,
            device_map=device_map,
            speed=speed,
            compiled=compiled,
        )
    if json:
        emit_json(report.to_dict())
    elif markdown:
        typer.echo(report.to_markdown(), nl=False)
    else:
        console = out()
        for table in report.tables():
            console.print(table, width=min(_WIDTH, console.width), highlight=False)
            console.print()
    raise typer.Exit(0 if report.passed else 1)
