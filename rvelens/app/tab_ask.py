"""The tab Ask: one question, plainly and under a method, and what the method did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from rvelens.app.asking import Asked, Setting, ask, given, read_picture, settings_of
from rvelens.app.layout import folded
from rvelens.app.markup import answer, figures, note, scale, side_by_side, swatches
from rvelens.app.models import Choice, Models
from rvelens.app.pictures import CHANGE, HEAT, changed, heated
from rvelens.app.shared import clickable, picture, scenes, thumbnails, told
from rvelens.heads.layers import format_layers
from rvelens.interventions.methods import METHODS
from rvelens.studies.cases.pictures import colour, n_layers, small, tinted
from rvelens.tokens.grid import ImageGrid

ALL_LAYERS = "all layers"
_NAMES = {"k": "K", "max_entropy": "max entropy"}
_HINTS = {
    "layers": "'3-5', '0,2', auto or preset",
    "k": "5",
    "alpha": "family's",
}


def build(models: Models, model: gr.State, webcam: bool) -> None:
    """The tab's fields and what they do."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            offered = scenes()
            image = picture("Picture", offered[0].image, webcam)
            gallery = clickable(
                "scene", thumbnails(*zip(*((s.image, s.text) for s in offered), strict=True))
            )
            question = gr.Textbox(label="Question", value=offered[0].text, elem_id="ask-question")
            method = gr.Dropdown(list(METHODS)[1:], value="rve", label="Method")
            fields = _settings(method)
            button = gr.Button("Ask", variant="primary", elem_id="ask")
        with gr.Column(scale=3, min_width=300):
            problem = gr.HTML(elem_id="ask-problem", elem_classes="rv-problem")
            answers = gr.HTML(note("Ask, and the answers appear here."), elem_id="ask-answers")
            layer = gr.Dropdown([ALL_LAYERS], value=ALL_LAYERS, label="Layer", visible=False)
            pictures = gr.HTML(elem_id="ask-pictures")
    asked = gr.State(None)

    def run(choice: Choice, path: str | None, text: str, by: str, *values: Any) -> Sequence[Any]:
        loaded, shown = models.loaded(choice), read_picture(path)
        wanted = given(settings_of(by), values[_slot(by)])
        with models.lock:
            found = ask(loaded, shown, text, by, wanted)
        choices = [ALL_LAYERS, *map(str, range(loaded.model.n_layers))]
        layers = gr.Dropdown(choices, value=ALL_LAYERS, visible=True)
        return found, said(found, choice.source), layers, views(found, ALL_LAYERS)

    asking = {
        "fn": told(run, (None, "", gr.Dropdown(visible=False), "")),
        "inputs": [model, image, question, method, *fields],
        "outputs": [asked, answers, layer, pictures, problem],
        "concurrency_id": "model",
    }
    button.click(**asking)
    question.submit(**asking)
    layer.input(views, [asked, layer], pictures)
    # What was answered about another scene, by another model or another profile does not stay.
    results = [asked, answers, layer, pictures, problem]
    gallery.select(_take, None, [image, question]).then(_nothing, None, results)
    model.change(_nothing, None, results)


def _nothing() -> tuple[Any, ...]:
    """The results before the first question."""
    return None, note("Ask, and the answers appear here."), gr.Dropdown(visible=False), "", ""


def _take(event: gr.EventData) -> tuple[Any, str]:
    """The scene that was clicked on."""
    scene = scenes()[int(event.value)]
    return scene.image, scene.text


def _settings(method: gr.Dropdown) -> list[Any]:
    """The fields of all methods, in the order of `METHODS`, the chosen one's on show."""
    fields: list[Any] = []
    with folded("Settings"):
        shown = gr.HTML(_alone("rve"))
        for name in list(METHODS)[1:]:
            with gr.Row(elem_id=f"settings-{name}", elem_classes="rv-settings"):
                fields += [_field(setting) for setting in settings_of(name)]
    method.change(_alone, method, shown, queue=False)
    return fields


def _alone(method: str) -> str:
    """A style sheet that hides the settings of other methods; what was written there stays."""
    return f"<style>.rv-settings:not(#settings-{method}){{display:none}}</style>"


def _slot(method: str) -> slice:
    """Where a method's fields stand among those of all methods."""
    counts = [len(settings_of(name)) for name in METHODS]  # vanilla has none
    start = sum(counts[: list(METHODS).index(method)])
    return slice(start, start + len(settings_of(method)))


def _field(setting: Setting) -> Any:
    label, hint = _NAMES.get(setting.name, setting.name), _HINTS.get(setting.name)
    more: Any = {"label": label, "value": setting.default, "min_width": 110}
    if setting.kind == "choice":
        return gr.Radio(["all", "sensitive"], **more)
    if setting.kind == "switch":
        return gr.Checkbox(**more)
    if setting.kind == "text" or setting.default is None:  # a number field would show 0 for none
        return gr.Textbox(**more, max_lines=1, placeholder=hint)
    return gr.Number(**more, precision=0 if setting.kind == "whole" else None)


def said(asked: Asked, source: str) -> str:
    """Both answers, to which question, and under which settings and profile."""
    settings = ", ".join(f"{k} {v}" for k, v in asked.method.parameters.items() if k != "profile")
    cards = (
        answer("plain", asked.plain, "plain"),
        answer(asked.method.name, asked.steered, "steered"),
    )
    profile = f", {source}" if "profile" in asked.method.parameters else ""
    conditions = (
        f"{asked.method.name}: {settings}{profile}. Greedy; probabilities of the first token."
    )
    return note(asked.question) + side_by_side(cards) + note(conditions)


def views(asked: Asked | None, layer: str) -> str:
    """What was enhanced and removed, and attention before and after, in one layer or in all."""
    if asked is None:
        return ""
    if asked.grid is None:
        return note(
            "The image tokens of this family have no place in the picture: nothing to show."
        )
    return _enhanced(asked, asked.grid, layer) + _attention(asked, asked.grid, layer)


def _enhanced(asked: Asked, grid: ImageGrid, layer: str) -> str:
    if not asked.masks:
        return ""
    chosen = (
        asked.masks if layer == ALL_LAYERS else {k: v for k, v in asked.masks.items() if k == layer}
    )
    if not chosen:
        layers = format_layers(map(int, asked.masks))
        return "<h3>Enhanced tokens</h3>" + note(
            f"Layer {layer} is not enhanced; layers {layers} are."
        )
    picture, n = small(asked.image), len(chosen)
    counts = {name: n_layers(chosen, name, grid.n_tokens) for name in ("enhanced", "removed")}
    shown = [
        (tinted(picture, count, grid, n), f"{name}: {_tokens(count)}")
        for name, count in counts.items()
    ]
    key = (
        f"in 1 to {n} layers ({format_layers(map(int, chosen))})"
        if n > 1
        else f"in layer {next(iter(chosen))}"
    )
    return (
        "<h3>Enhanced tokens</h3>"
        + figures(
            [(picture, "picture"), shown[0], (shown[1][0], f"{shown[1][1]}, by the denoising mask")]
        )
        + swatches([colour(k, n) for k in range(1, n + 1)], key)
    )


def _tokens(counts: np.ndarray) -> str:
    n = int((counts > 0).sum())
    return f"{n} token" if n == 1 else f"{n} tokens"


def _attention(asked: Asked, grid: ImageGrid, layer: str) -> str:
    picture = small(asked.image)
    before, after = (
        (x if layer == ALL_LAYERS else x[int(layer)][None]).double().mean(dim=(0, 1)).numpy()
        for x in (asked.before, asked.after)
    )
    top, change = max(before.max(), after.max()), after - before
    most = float(np.abs(change).max())
    shown = [
        (heated(picture, before, grid, top), f"before: {before.sum():.1%} of the attention"),
        (heated(picture, after, grid, top), f"after: {after.sum():.1%} of the attention"),
        (changed(picture, change, grid, most), "change"),
    ]
    if not most:
        shown[2] = (picture, f"no change: {asked.method.name} edits none of this attention")
    where = "all layers" if layer == ALL_LAYERS else f"layer {layer}"
    return (
        "<h3>Attention</h3>"
        + figures(shown)
        + scale(HEAT, "0", f"{top:.2g}", "attention to a token")
        + (scale(CHANGE, f"−{most:.2g}", f"+{most:.2g}", "change") if most else "")
        + note(
            "Attention of the prompt's last token to each image token, after softmax, mean over the "
            f"heads of {where}; not renormalised over the image: its sum is what the image gets."
        )
    )
