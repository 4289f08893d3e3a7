"""The tab Ask: one question, plainly and under two methods, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from rvelens.app.address import Place, link_to, read_link
from rvelens.app.asking import Comparison, ask, read_picture, readable_picture
from rvelens.app.code import manifest_of, python_of
from rvelens.app.downloads import FIGURE, downloads, figure_link, file_link, tools_html
from rvelens.app.enhanced import enhanced
from rvelens.app.fields import NONE, fields_of, method_fields, slot, wanted_of
from rvelens.app.markup import note
from rvelens.app.models import Choice, Models
from rvelens.app.settings import CHOICES, REGION
from rvelens.app.shared import (
    FIRST_SCENE,
    IN_TURN,
    SKIP,
    catch,
    clear_unless_about,
    clickable,
    picture,
    scenes,
    script,
    thumbnails,
)
from rvelens.app.viewer import Focus, checked_view, viewer
from rvelens.plots import token_overlays

_WAITING = note("Ask, and the answers appear here.")


def build_ask_tab(models: Models, start: Choice, model: gr.State, webcam: bool) -> Any:
    """The tab's fields and what they do.

    Returns:
        a function that takes the page's own `load` event and restores what the address says.
    """
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            offered = scenes()
            image = picture("Picture", offered[FIRST_SCENE].image, webcam)
            gallery = clickable(
                "scene", thumbnails(*zip(*((s.image, s.text) for s in offered), strict=True))
            )
            question = gr.Textbox(
                label="Question", value=offered[FIRST_SCENE].text, elem_id="ask-question"
            )
            chosen = first_methods(start)
            with gr.Row():
                method = gr.Dropdown(
                    list(CHOICES), value=chosen[0], label="Method", min_width=120, elem_id="method"
                )
                second = gr.Dropdown(
                    [NONE, *CHOICES],
                    value=chosen[1],
                    label="And beside it",
                    min_width=120,
                    elem_id="second",
                )
            fields = method_fields(method, second, chosen)
            button = gr.Button("Ask", variant="primary", elem_id="ask")
        with gr.Column(scale=5, min_width=300):
            of_link = gr.HTML(elem_id="link-problem", elem_classes="rv-problem")
            problem = gr.HTML(elem_id="ask-problem", elem_classes="rv-problem")
            answers = gr.HTML(_WAITING, elem_id="ask-answers", js_on_load=script("viewer.js"))
            pictures = gr.HTML(elem_id="ask-pictures")
            tools = gr.HTML(elem_id="ask-tools", js_on_load=script("tools.js"))
            saved = downloads("ask-download")
    comparison, view = gr.State(None), gr.State(Focus())
    address = gr.Textbox(visible="hidden")  # a State gets nothing from a script

    def show(choice: Choice, compared: Comparison, at: Focus) -> tuple[str, str, str]:
        return (
            viewer(compared, at, link_to(compared, at)) + conditions(compared, choice.source),
            enhanced(compared, at),
            tools_html(python_of(compared, at, models, choice), "manifest", *FIGURE),
        )

    def run(
        choice: Choice,
        path: str | None,
        text: str,
        by: str,
        other: str,
        at: Focus,
        *values: Any,
    ) -> Sequence[Any]:
        loaded, shown = models.loaded(choice), read_picture(path)
        parameters = wanted_of(by, other, values)
        with models.lock:
            compared = ask(loaded, shown, text, parameters)
        return compared, *show(choice, compared, at)

    def refocus(choice: Choice, compared: Comparison | None, event: gr.EventData) -> Sequence[Any]:
        at = Focus(None if event.layer < 0 else int(event.layer), int(event.step), str(event.show))
        if compared is None:
            return at, "", "", ""
        return at, *show(choice, compared, checked_view(at, compared))

    def steer(compared: Comparison | None, by: str, event: gr.EventData) -> Sequence[Any]:
        """The fields of a region that was drawn, in pixels."""
        if compared is None:
            return SKIP, SKIP
        text = box_text(event.box, compared.image.size)
        return SKIP if by == REGION else REGION, text

    def save(
        choice: Choice, compared: Comparison | None, at: Focus, event: gr.EventData
    ) -> Sequence[Any]:
        if compared is None:
            raise ValueError("nothing is answered yet: expected answers to save; ask first.")
        with models.lock:
            return (_file(models, choice, compared, at, str(event.kind)),)

    # The picture is set anew: Gradio builds a field that is left alone anew, without its `preprocess`.
    fresh = (scenes()[FIRST_SCENE].image, *[SKIP] * (4 + len(fields)))

    def restore(query: str) -> Sequence[Any]:
        if not query:
            return fresh
        place = read_link(query)
        return restored(place, start, fields_of(place))

    results = [comparison, answers, pictures, tools, problem]
    asking = {
        "fn": catch(run, (None, "", "", "")),
        "inputs": [model, image, question, method, second, view, *fields],
        "outputs": results,
        **IN_TURN,
    }
    button.click(**asking)
    question.submit(**asking)
    gr.on([button.click, question.submit], lambda: "", None, of_link, queue=False)
    shown = [view, answers, pictures, tools, problem]
    answers.select(catch(refocus, (SKIP, "", "", "")), [model, comparison], shown)
    box = fields[slot(REGION).start]
    steered = answers.edit(catch(steer, (SKIP,) * 2), [comparison, method], [second, box, problem])
    steered.then(**asking)
    tools.select(catch(save, ("",)), [model, comparison, view], [saved, problem], **IN_TURN)
    gallery.select(_take, None, [image, question])
    # What was answered about another picture, by another model or profile does not stay.
    gr.on([gallery.select, image.upload, image.clear], _nothing, None, results, queue=False)
    model.change(_renewed, model, results, queue=False)
    # Once more behind an answer that is under way, which arrives later.
    in_turn: Any = {"trigger_mode": "multiple", **IN_TURN}
    gallery.select(_clear_before_scene, comparison, results, **in_turn)
    gr.on(
        [image.upload, image.clear], _clear_before_upload, [comparison, image], results, **in_turn
    )
    model.change(_renewed, model, results, **in_turn)

    def on_load(
        page: gr.Blocks,
        heads: tuple[Any, list[Any]],
        profile: tuple[Any, list[Any], str],
        ready: str,
    ) -> None:
        """Restore, another tab's fields too, show the page, restore the profile, then answer.

        The profile comes after the page is shown: to measure it takes its time.
        """
        search: Any = "() => [location.search]"
        page.load(
            catch(restore, fresh), address, [image, question, method, second, view, *fields, of_link],
            js=search,
        ).then(heads[0], address, heads[1], js=search).then(None, js=ready).then(
            profile[0], address, profile[1], js=search, **IN_TURN
        ).then(None, profile[1][1], None, js=profile[2]).then(**asking)  # fmt: skip

    return on_load


def first_methods(start: Choice) -> tuple[str, str]:
    """What a fresh page asks with: rve where there is a head profile for it."""
    return ("rve", "vaf") if start.profile is not None else ("vaf", NONE)


def box_text(box: Sequence[float], size: tuple[int, int]) -> str:
    """A box in fractions of a picture as whole pixels, at least one wide and high."""
    x0, y0, x1, y1 = (round(float(at) * size[n % 2]) for n, at in enumerate(box))
    x0, y0 = min(x0, size[0] - 1), min(y0, size[1] - 1)
    return f"{x0},{y0},{max(x1, x0 + 1)},{max(y1, y0 + 1)}"


def restored(place: Place, start: Choice, fields: Sequence[Any]) -> Sequence[Any]:
    """What the tab's fields become at an address.

    Raises:
        ValueError: the address is of another model, or of a picture that it does not carry.
    """
    if place.model and place.model != start.name:
        raise ValueError(
            f"the address is of the model {place.model}, and this page opened with {start.name}: "
            "expected the same; start the explorer with that model, or load it above and ask again."
        )
    if place.scene is None:
        raise ValueError(
            "the address is of an uploaded picture, which no address carries: expected the picture; "
            "drop it again and ask."
        )
    scene = scenes()[place.scene]
    first, second = place.methods or first_methods(start), NONE
    if len(first) == 2:
        first, second = first[:1], first[1]
    question = scene.text if place.question is None else place.question
    return (scene.image, question, first[0] if first else SKIP, second, place.view, *fields)


def _nothing() -> tuple[Any, ...]:
    """The results before the first question."""
    return None, _WAITING, "", "", ""


def _clear_before_scene(compared: Comparison | None, event: gr.EventData) -> tuple[Any, ...]:
    """Clear the results unless they are about the clicked scene."""
    return clear_unless_about(
        None if compared is None else compared.image, scenes()[int(event.value)].image, _nothing()
    )


def _clear_before_upload(compared: Comparison | None, path: str | None) -> tuple[Any, ...]:
    """Clear the results unless they are about the picture in the field."""
    return clear_unless_about(
        None if compared is None else compared.image, readable_picture(path), _nothing()
    )


def _renewed(choice: Choice) -> tuple[Any, ...]:
    """The results at another model or profile; one from an address comes before the first answers."""
    return (SKIP,) * 5 if choice.is_restored else _nothing()


def _take(event: gr.EventData) -> tuple[Any, str]:
    """The scene that was clicked on."""
    scene = scenes()[int(event.value)]
    return scene.image, scene.text


def conditions(comparison: Comparison, source: str) -> str:
    """Under which settings and profile the answers were given."""
    return note(
        " ".join(
            [
                *(
                    _settled(column.name, column.method.parameters, source)
                    for column in comparison.columns[1:]
                ),
                "All answers are greedy.",
            ]
        )
    )


def _settled(name: str, parameters: Mapping[str, Any], source: str) -> str:
    settings = ", ".join(f"{k} {v}" for k, v in parameters.items() if k != "profile")
    return f"{name}: {settings}{f', {source}' if 'profile' in parameters else ''}."


def _file(models: Models, choice: Choice, comparison: Comparison, at: Focus, kind: str) -> str:
    """A file of what is on the page, as a link that holds it."""
    if kind == "manifest":
        return file_link("manifest.json", manifest_of(comparison, models, choice).encode())
    layers = None if at.layer is None else [at.layer]
    figure = token_overlays(comparison.trace, layers=layers, title=comparison.question)
    return figure_link("answers.pdf" if kind == "pdf" else "answers.png", figure)
