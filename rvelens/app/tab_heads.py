"""The tab Heads: the ARS map, what a head looks at for both texts of a pair, answers without heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from rvelens.app.asking import read_picture, readable_picture
from rvelens.app.head_charts import map_html, marks_html, numbers
from rvelens.app.head_maps import head_maps
from rvelens.app.heads import (
    ORDERS,
    PairAttention,
    ask_without,
    brushed,
    format_heads,
    parse_heads,
    see,
    sorted_heads,
    toggled,
)
from rvelens.app.heads_code import PAIR, PROFILE
from rvelens.app.heads_link import UPLOAD, WRITE, read_heads_link
from rvelens.app.heads_tools import heads_tools
from rvelens.app.markup import (
    answer_card,
    card_row,
    escape,
)
from rvelens.app.models import N_MEASURED, Choice, Models
from rvelens.app.shared import (
    IN_TURN,
    PATH,
    SKIP,
    catch,
    clear_unless_about,
    clickable,
    picture,
    scene_pairs,
    script,
    thumbnails,
)
from rvelens.heads.pair import ContrastivePair


def build_heads_tab(
    models: Models, start: Choice, model: gr.State, webcam: bool, tabs: gr.HTML
) -> tuple[Callable[[str], Sequence[Any]], list[Any]]:
    """The tab's fields and what they do; `model` is this window's choice, `start` its first one.

    Returns:
        a function from an address to the fields that it restores, and these fields.
    """
    of_pair, number = gr.State(None), gr.Textbox("0", visible="hidden")
    pairs = scene_pairs()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            image = picture("Picture of the pair", pairs[0].image, webcam)
            captions = [f"{p.question} / {p.contrastive}" for p in pairs]
            gallery = clickable("scene", thumbnails([p.image for p in pairs], captions))
            question = gr.Textbox(
                label="Question", value=pairs[0].question, elem_id="pair-question"
            )
            contrastive = gr.Textbox(
                label="Contrastive question", value=pairs[0].contrastive, elem_id="pair-contrastive"
            )
            button = gr.Button("Look", variant="primary", elem_id="look")
        with gr.Column(scale=3, min_width=300):
            problem = gr.HTML(elem_id="heads-problem", elem_classes="rv-problem")
            with gr.Row(equal_height=True):
                source = gr.Radio([PROFILE, PAIR], value=PROFILE, label="ARS of", min_width=180)
                order = gr.Radio(ORDERS, value="score", label="List by", min_width=180)
            chart = gr.HTML(
                lambda: map_html(models.loaded(start), None, PROFILE, "score"),
                elem_id="heads-map",
                js_on_load=script("heads.js"),
            )
            marks = gr.HTML(elem_classes="rv-style")
            head = gr.Textbox(
                label="Head on show (layer.head); a click on the map shows it", elem_id="head"
            )
            maps = gr.HTML(elem_id="head-maps")
            with gr.Row(equal_height=True):
                chosen = gr.Textbox(
                    label="Heads to leave out: click them, or drag over the map",
                    placeholder="3.5, 4.1",
                    elem_id="chosen",
                    scale=3,
                    **PATH,
                )
                clear = gr.Button("Clear", elem_id="clear", scale=1, min_width=90)
            adds = gr.Checkbox(label="A click on a head adds or removes it", value=True)
            without = gr.Button("Ask without these heads", elem_id="without", variant="primary")
            answers = gr.HTML(elem_id="heads-answers")
            fields = [number, question, contrastive, head, chosen]
            heads_tools(models, start, model, of_pair, source, fields)
            measure = gr.Button(f"Measure a profile on {N_MEASURED} scenes", size="sm")

    def show_pair(
        choice: Choice, path: str | None, text: str, other: str, shown: str
    ) -> Sequence[Any]:
        recorded = _see(models, choice, path, text, other)
        return recorded, head_maps(recorded, shown)

    def click(
        choice: Choice, recorded: PairAttention | None, path: str | None, text: str, other: str,
        listed: str, add: bool, event: gr.EventData,
    ) -> Sequence[Any]:  # fmt: skip
        if recorded is None or recorded.texts != (text, other):
            recorded = _see(models, choice, path, text, other)
        shape = recorded.scores.shape
        listed = toggled(listed, event.value, *shape) if add else listed
        return (
            recorded,
            event.value,
            listed,
            head_maps(recorded, event.value),
            marks_html(event.value, listed, shape),
        )

    def brush(choice: Choice, listed: str, shown: str, event: gr.EventData) -> Sequence[Any]:
        m = models.loaded(choice).model
        shape = (m.n_layers, m.n_heads)
        listed = brushed(listed, str(event.first), str(event.last), *shape)
        return listed, marks_html(shown, listed, shape)

    def first_look(
        choice: Choice, recorded: PairAttention | None, path: str | None, text: str, other: str,
        listed: str, shown: str, event: gr.EventData,
    ) -> Sequence[Any]:  # fmt: skip
        """The head of the address or the most sensitive one, where nothing was looked at."""
        mean = None if choice.profile is None else choice.profile.mean
        if event.value != "heads" or recorded is not None or (mean is None and not shown):
            return (SKIP,) * 4
        recorded = _see(models, choice, path, text, other)
        if mean is not None and not shown:
            ((layer, number), *_) = sorted_heads(numbers(mean), "score")
            shown = f"{layer}.{number}"
        return (
            recorded,
            shown,
            head_maps(recorded, shown),
            marks_html(shown, listed, recorded.scores.shape),
        )

    def mask(choice: Choice, path: str | None, text: str, other: str, listed: str) -> Sequence[Any]:
        loaded, shown = models.loaded(choice), read_picture(path)
        heads = parse_heads(listed, loaded.model.n_layers, loaded.model.n_heads)
        with models.lock:
            rows = ask_without(loaded, shown, (text, other), heads)
        cards = [
            f"<h3>{escape(sentence)}</h3>"
            + card_row(
                [
                    answer_card("all heads", a, "plain"),
                    answer_card(f"without {format_heads(heads)}", b, "steered"),
                ]
            )
            for sentence, (a, b) in zip((text, other), rows, strict=True)
        ]
        return ("".join(cards),)

    def remeasure(choice: Choice) -> Sequence[Any]:
        return (models.measure_scenes(choice),)

    def show_map(
        choice: Choice, recorded: PairAttention | None, by: str, listed: str
    ) -> Sequence[Any]:
        return (map_html(models.loaded(choice), recorded, by, listed),)

    def show_marks(choice: Choice, shown: str, listed: str) -> Sequence[Any]:
        m = models.loaded(choice).model
        return (marks_html(shown, listed, (m.n_layers, m.n_heads)),)

    def renewed(choice: Choice) -> Sequence[Any]:
        """The tab as it is at another model or profile."""
        drawn_map = map_html(models.loaded(choice), None, PROFILE, ORDERS[0])
        if choice.is_restored:
            return (SKIP, drawn_map, PROFILE, ORDERS[0], *[SKIP] * 5)
        return (None, drawn_map, PROFILE, ORDERS[0], *[""] * 5)

    pair = [model, image, question, contrastive]
    drawn = {"inputs": [model, of_pair, source, order], "outputs": [chart, problem]}
    button.click(catch(show_pair, (None, "")), [*pair, head], [of_pair, maps, problem], **IN_TURN)
    chart.select(
        catch(click, (None, SKIP, SKIP, "", SKIP)), [model, of_pair, *pair[1:], chosen, adds],
        [of_pair, head, chosen, maps, marks, problem], **IN_TURN,
    )  # fmt: skip
    chart.edit(
        catch(brush, (SKIP, SKIP)),
        [model, chosen, head],
        [chosen, marks, problem],
        **IN_TURN,
    )
    clear.click(catch(show_marks, ("",)), [model, head, gr.State("")], [marks, problem])
    clear.click(lambda: ("", ""), None, [chosen, answers])
    tabs.select(
        catch(first_look, (SKIP,) * 4), [model, of_pair, *pair[1:], chosen, head],
        [of_pair, head, maps, marks, problem], **IN_TURN,
    )  # fmt: skip
    order.input(catch(show_map, ("",)), **drawn)
    of_pair.change(show_map, drawn["inputs"], chart)
    head.submit(catch(lambda s, h: (head_maps(s, h),), ("",)), [of_pair, head], [maps, problem])
    chosen.blur(catch(show_marks, ("",)), [model, head, chosen], [marks, problem])
    source.input(catch(show_map, ("",)), **drawn)
    without.click(catch(mask, ("",)), [*pair, chosen], [answers, problem], **IN_TURN)
    measure.click(catch(remeasure, (SKIP,)), model, [model, problem], **IN_TURN)
    gallery.select(_take, None, [number, image, question, contrastive])
    # What was seen of another picture does not stay.
    results = [of_pair, maps, answers, problem]
    gr.on([gallery.select, image.upload, image.clear], _nothing, None, results, queue=False)
    # Once more behind what is under way, which arrives later.
    in_turn: Any = {"trigger_mode": "multiple", **IN_TURN}
    gallery.select(_clear_before_pair, of_pair, results, **in_turn)
    gr.on([image.upload, image.clear], _clear_before_upload, [of_pair, image], results, **in_turn)
    gr.on([image.upload, image.clear], lambda: UPLOAD, None, number)
    gr.on([field.change for field in fields], None, fields, None, js=WRITE)
    model.change(
        catch(renewed, (SKIP,) * 9),
        model, [of_pair, chart, source, order, maps, chosen, head, marks, answers, problem], **IN_TURN,
    )  # fmt: skip

    def restore(query: str) -> Sequence[Any]:
        m = models.loaded(start).model
        place = read_heads_link(query, m.n_layers, m.n_heads)
        if place is None:
            return fresh
        shown = scene_pairs()[place.pair].image
        marked = marks_html(place.head, place.without, (m.n_layers, m.n_heads))
        return (
            str(place.pair), shown, place.question, place.contrastive, place.head, place.without, marked
        )  # fmt: skip

    # The picture is set anew: Gradio builds a field that is left alone anew, without its `preprocess`.
    fresh = (SKIP, pairs[0].image, *[SKIP] * 5)
    restored = [number, image, question, contrastive, head, chosen, marks, problem]
    return catch(restore, fresh), restored


def _nothing() -> tuple[Any, ...]:
    """The results before anything was looked at."""
    return None, "", "", ""


def _clear_before_pair(recorded: PairAttention | None, event: gr.EventData) -> tuple[Any, ...]:
    """Clear the results unless they are about the clicked pair."""
    drawn: Any = scene_pairs()[int(event.value)].image  # a picture, never a path
    return clear_unless_about(None if recorded is None else recorded.image, drawn, _nothing())


def _clear_before_upload(recorded: PairAttention | None, path: str | None) -> tuple[Any, ...]:
    """Clear the results unless they are about the picture in the field."""
    return clear_unless_about(
        None if recorded is None else recorded.image, readable_picture(path), _nothing()
    )


def _take(event: gr.EventData) -> Sequence[Any]:
    """The pair that was clicked on."""
    pair = scene_pairs()[int(event.value)]
    return str(int(event.value)), pair.image, pair.question, pair.contrastive


def _see(models: Models, choice: Choice, path: str | None, text: str, other: str) -> PairAttention:
    loaded, shown = models.loaded(choice), read_picture(path)
    pair = ContrastivePair(shown, text, other, "of this page")
    with models.lock:
        return see(loaded, pair)
