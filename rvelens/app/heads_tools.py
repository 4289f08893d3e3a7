"""Downloads of the tab Heads: its program, and its map as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from rvelens.app.downloads import FIGURE, downloads, figure_link, tools_html
from rvelens.app.heads import PairAttention, parse_heads
from rvelens.app.heads_code import PAIR, PROFILE, HeadsView, map_figure, python_of_heads
from rvelens.app.heads_link import UPLOAD
from rvelens.app.markup import note
from rvelens.app.models import Choice, Models
from rvelens.app.shared import IN_TURN, catch, script


def heads_tools(
    models: Models,
    start: Choice,
    model: gr.State,
    of_pair: gr.State,
    source: gr.Radio,
    fields: Sequence[gr.Textbox],
) -> None:
    """The buttons and what they do.

    Args:
        models, start, model: as of the tab.
        of_pair: what was seen of the pair.
        source: whose ARS the map shows.
        fields: number of the pair, its two texts, the head on show, the heads to leave out.
    """
    first = [field.value or "" for field in fields]
    tools = gr.HTML(
        lambda: heads_tools_html(models, start, PROFILE, *first),
        elem_id="heads-tools",
        js_on_load=script("tools.js"),
    )
    problem = gr.HTML(elem_id="heads-tools-problem", elem_classes="rv-problem")
    saved = downloads("heads-download")

    def show(choice: Choice, by: str, *values: str | None) -> str:
        return heads_tools_html(models, choice, by, *(value or "" for value in values))

    def save(
        choice: Choice, recorded: PairAttention | None, by: str, event: gr.EventData
    ) -> Sequence[str]:
        return (figure_link(f"heads.{event.kind}", map_figure(choice, recorded, by)),)

    gr.on(
        [model.change, source.change, *(field.change for field in fields)],
        show, [model, source, *fields], tools, trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    tools.select(catch(save, ("",)), [model, of_pair, source], [saved, problem], **IN_TURN)


def heads_tools_html(
    models: Models,
    choice: Choice,
    source: str,
    pair: str,
    question: str,
    contrastive: str,
    shown: str,
    masked: str,
) -> str:
    """The buttons and the program; why there is none where the heads cannot be read."""
    lens = models.loaded(choice).model
    try:
        heads = [parse_heads(text, lens.n_layers, lens.n_heads) for text in (shown, masked)]
    except ValueError as error:
        return note(str(error))
    number = None if pair == UPLOAD else int(pair)
    view = HeadsView(number, question, contrastive, source, *heads)
    has_map = source == PAIR or (choice.profile is not None and choice.profile.mean is not None)
    return tools_html(python_of_heads(view, models, choice), *(FIGURE if has_map else ()))
