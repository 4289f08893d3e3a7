"""`rvelens app`: the explorer, a page on this machine."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Annotated

import typer

from rvelens.cli.common import DeviceMap, Dtype, DtypeOption, FamilyName, check_model_options, out


def explore(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="A name on the Hub, a folder, or rvelens/tiny.")
    ] = "rvelens/tiny",
    profile: Annotated[
        str | None,
        typer.Option(help="A file that `rvelens scan` wrote, or `published` (LLaVA-1.5-7B)."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 chooses a free one.")
    ] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = False,
    webcam: Annotated[
        bool, typer.Option("--webcam", help="Allow pictures from the webcam.")
    ] = False,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
) -> None:
    """Open the explorer on 127.0.0.1: ask, look at heads, review pairs, open runs; Ctrl-C ends it."""
    try:
        from rvelens.app.page import served
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError(
            "the explorer needs Gradio, which is not installed: expected the extra [app]; run pip "
            "install 'rvelens[app]'."
        ) from error
    from rvelens.app.models import Models

    check_model_options(model, family, device_map)
    models = Models(family, str(dtype), device_map)
    start = models.choose(model, profile or "")
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with served(models, start, port=port, webcam=webcam, browser=browser) as address:
            out().print(
                f"rvelens explorer on {address} (Ctrl-C ends it)",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            over.wait()
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
