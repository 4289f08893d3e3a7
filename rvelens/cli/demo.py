"""`rvelens demo`: the main job on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvelens.cli.common import Json, bar, check_model_options, emit_json, open_model, out
from rvelens.files.atomic import write_json, write_text
from rvelens.files.paths import refuse_foreign, remove_if_refused


def demo(
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A model with a single patch grid.")
    ] = "rvelens/tiny",
    n_test: Annotated[int, typer.Option(min=8, help="Test questions.")] = 1000,
    n_validation: Annotated[
        int, typer.Option(min=8, help="Validation questions, to choose settings.")
    ] = 400,
    n_pairs: Annotated[int, typer.Option(min=1, help="Contrastive pairs for ARS.")] = 128,
    seed: Annotated[
        int, typer.Option(min=0, max=999, help="Seed of questions and intervals.")
    ] = 55,
    save: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.md and the pictures.")
    ] = None,
    json: Json = False,
) -> None:
    """Find sensitive heads, steer attention, and measure what it does on action scenes."""
    check_model_options(model)
    with remove_if_refused(save):
        _measure(model, (n_test, n_validation, n_pairs), seed, save, json)


def _measure(
    model: str, numbers: tuple[int, int, int], seed: int, save: Path | None, json: bool
) -> None:
    # Brings scipy along, which no other command waits for.
    from rvelens.studies import demo as report

    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(
                f"--save {save} is not a folder: expected a new or existing folder; choose another."
            ) from error
        files = [save / name for name in ("report.json", "report.md", "ars.png", "overlay.png")]
        refuse_foreign(files, files[0], "heads_and_region")
    # Float32 whatever the weights were saved in, so that no two logits are equal by rounding.
    hooked = open_model(model, dtype="float32")
    result = report.run_demo(hooked, *numbers, seed, progress=bar("measuring"))
    if save is not None:
        write_json(save / "report.json", result.to_json())
        write_text(save / "report.md", report.demo_to_markdown(result))
        report.draw_examples(hooked, result, save)
    if json:
        emit_json(result.to_json())
    else:
        console = out()
        console.print(report.examples_table(report.examples(hooked, result)), highlight=False)
        console.print(report.render_demo(result), highlight=False)
        if save is not None:
            console.print(f"report and pictures in {save}", soft_wrap=True)
