"""`rvelens convert`: checkpoints of other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvelens.cli.common import Dtype, Json, bar, emit_json, out
from rvelens.convert import convert_sharegpt4v

convert = typer.Typer(
    add_completion=False,
    help="Turn checkpoints of other formats into folders that transformers loads.",
)


@convert.callback()
def _group() -> None:
    """Let `sharegpt4v` be a subcommand, though there is no other yet."""


@convert.command()
def sharegpt4v(
    src: Annotated[Path, typer.Argument(help="Folder of the original checkpoint.")],
    dst: Annotated[Path, typer.Argument(help="The folder to make.")],
    vision_tower: Annotated[
        Path | None,
        typer.Option(help="Folder or file of the tuned vision tower, if SRC does not hold it."),
    ] = None,
    vision_config: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the tower's CLIP configuration.",
            show_default="beside --vision-tower, else CLIP ViT-L/14 at 336 pixels",
        ),
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="Precision of the new weights; auto keeps the source's.")
    ] = Dtype.auto,
    json: Json = False,
) -> None:
    """Turn a ShareGPT4V checkpoint (original LLaVA format) into a transformers LLaVA folder."""
    done = convert_sharegpt4v(
        src,
        dst,
        vision_tower=vision_tower,
        vision_config=vision_config,
        dtype=str(dtype),
        progress=bar("shards"),
    )
    if json:
        emit_json(
            {
                "folder": str(done.folder),
                "placed": done.placed,
                "dropped": list(done.dropped),
                "bytes": done.n_bytes,
            }
        )
        return
    out().print(
        f"{done.placed} tensors ({done.n_bytes / 1e9:.2f} GB) in {done.folder}, {len(done.dropped)} "
        f"buffers dropped; load it with --family sharegpt4v",
        highlight=False,
        soft_wrap=True,
    )
