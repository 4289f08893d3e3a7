"""Downloads of the tab Runs: its program, and its figure of accuracy over yes-ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from rvelens.app.downloads import FIGURE, downloads, figure_link, tools_html
from rvelens.app.models import Models
from rvelens.app.runs_code import has_yes_ratio, python_of_run
from rvelens.app.shared import catch
from rvelens.evaluate.flips import FlipFilter
from rvelens.evaluate.opened import OpenedRun, strict_scores
from rvelens.plots import yes_ratio_points


def runs_tools(
    models: Models, run: gr.State, benchmark: gr.Dropdown, filters: Sequence[Any],
    tools: gr.HTML, example: Path,
) -> None:  # fmt: skip
    """What the buttons in `tools` do.

    Args:
        models: how models are loaded.
        run: what is open.
        benchmark: the benchmark on show.
        filters: method, direction, group and search of the flipped answers.
        tools: where the buttons stand.
        example: the folder of the example.
    """
    problem = gr.HTML(elem_classes="rv-problem")
    saved = downloads("run-download")

    def show(of_run: OpenedRun | None, name: str | None, *chosen: str | None) -> str:
        return runs_tools_html(models, of_run, name, chosen, example)

    def save(of_run: OpenedRun | None, name: str | None, event: gr.EventData) -> Sequence[str]:
        if of_run is None or name is None:
            raise ValueError("no run is open: expected one with yes/no questions; open it above.")
        figure = yes_ratio_points(*strict_scores(of_run, name), title=name)
        return (figure_link(f"run.{event.kind}", figure),)

    method, direction, group, search = filters
    gr.on(
        [run.change, benchmark.change, method.change, direction.change, group.change, search.blur,
         search.submit],
        show, [run, benchmark, *filters], tools, trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    tools.select(catch(save, ("",)), [run, benchmark], [saved, problem])


def runs_tools_html(
    models: Models,
    run: OpenedRun | None,
    benchmark: str | None,
    filters: Sequence[str | None],
    example: Path,
) -> str:
    """The buttons and the program; nothing where no run is open."""
    if run is None:
        return ""
    method, *others = (text or "" for text in filters)
    criteria = None if benchmark is None else FlipFilter(benchmark, method, *others)
    code = python_of_run(run, criteria, models, is_example=run.folder == example)
    has_figure = benchmark is not None and has_yes_ratio(run, benchmark)
    return tools_html(code, *(FIGURE if has_figure else ()))
