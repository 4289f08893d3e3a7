"""Results as HTML. Whatever people, models or files say is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape as html_escape
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap
from PIL import Image

from rvelens.app.asking import YesNoAnswer
from rvelens.app.pictures import css_gradient
from rvelens.evaluate.render import tables
from rvelens.studies.cases.pictures import to_data_uri


def escape(text: str) -> str:
    """Text for HTML, inert in Gradio's templates too, which read `${...}` and `{{...}}`."""
    return html_escape(text).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def message(text: str) -> str:
    """What went wrong, in one sentence; nothing for ""."""
    return (
        f'<p class="rv-message" role="alert">{escape(" ".join(text.split()))}</p>' if text else ""
    )


def note(text: str) -> str:
    """A sentence in small print."""
    return f'<p class="rv-note">{escape(text)}</p>'


def answer_card(label: str, answer: YesNoAnswer, role: str) -> str:
    """An answer as a card, with the first token's probabilities as bars."""
    return (
        f'<div class="rv-answer rv-{role}"><h3>{escape(label)}</h3>'
        f'<q dir="auto">{escape(answer.text) or "(nothing)"}</q>{bars(answer)}</div>'
    )


def bars(answer: YesNoAnswer) -> str:
    """The first token's probabilities of yes and no as bars."""
    return "".join(_bar(name, share) for name, share in (("yes", answer.yes), ("no", answer.no)))


def _bar(name: str, share: float | None) -> str:
    if share is None:
        return ""
    return (
        f'<div class="rv-bar"><span>P({name})</span><i><b style="width:{100 * share:.1f}%"></b></i>'
        f"<span>{share:.3f}</span></div>"
    )


def card_row(cards: Iterable[str]) -> str:
    """Cards in a row, or one below the other where the page is narrow."""
    return f'<div class="rv-cards">{"".join(cards)}</div>'


def figures(pictures: Iterable[tuple[Image.Image, str]]) -> str:
    """Pictures with captions in a row."""
    elements = [
        f'<figure><img src="{to_data_uri(picture)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in pictures
    ]
    return f'<div class="rv-figures n{len(elements)}">{"".join(elements)}</div>'


def scale(colours: Colormap, low: str, high: str, label: str) -> str:
    """A colour scale with its ends and its meaning."""
    return (
        f'<p class="rv-scale"><span>{escape(low)}</span>'
        f'<i style="background:{css_gradient(colours)}"></i><span>{escape(high)}</span> '
        f"{escape(label)}</p>"
    )


def swatches(colours: Sequence[str], label: str) -> str:
    """Steps of a colour scale that counts from 1, and its meaning."""
    steps = "".join(f'<i style="background:{colour}"></i>' for colour in colours)
    return f'<p class="rv-scale rv-steps"><span>{steps}</span> {escape(label)}</p>'


def head_map(scores: Float[np.ndarray, "layer head"]) -> str:
    """A button for each head, coloured by its ARS from the lowest to the highest."""
    low, high = float(scores.min()), float(scores.max())
    shades = colormaps["cividis"]((scores - low) / ((high - low) or 1.0))
    n_layers, n_heads = scores.shape
    rows = []
    for layer in range(n_layers):
        rows.append(f"<span>{layer}</span>")
        rows += [
            f'<button type="button" data-head="{layer}.{head}" style="background:'
            f'{_hex(shades[layer, head])}" title="{layer}.{head}: {scores[layer, head]:.3f}" '
            f'aria-label="layer {layer}, head {head}, ARS {scores[layer, head]:.3f}"></button>'
            for head in range(n_heads)
        ]
    numbers = [
        f"<span>{head if head % max(n_heads // 8, 1) == 0 else ''}</span>"
        for head in range(n_heads)
    ]
    rows += ["<span>layer</span>", *numbers]
    grid = f"grid-template-columns:auto repeat({n_heads},minmax(0,1fr))"
    return f'<div class="rv-map" style="{grid}">{"".join(rows)}</div>' + scale(
        colormaps["cividis"], f"{low:.2f}", f"{high:.2f}", "ARS; layers downwards, heads across"
    )


def _hex(colour: Float[np.ndarray, " 4"]) -> str:
    return "#" + "".join(f"{round(255 * x):02x}" for x in colour[:3])


def head_list(scores: Float[np.ndarray, "layer head"], heads: Iterable[tuple[int, int]]) -> str:
    """A button for each head in the given order, with its ARS as a bar."""
    top = float(scores.max()) or 1.0
    buttons = [
        f'<button type="button" data-head="{layer}.{head}"><span>{layer}.{head}</span>'
        f'<i><b style="width:{100 * max(float(scores[layer, head]), 0.0) / top:.1f}%"></b></i>'
        f"<span>{scores[layer, head]:.3f}</span></button>"
        for layer, head in heads
    ]
    return f'<div class="rv-list">{"".join(buttons)}</div>'


def head_marks(shown: str, chosen: Iterable[str]) -> str:
    """A style sheet that outlines the head on show and the chosen ones on the map."""
    rules = "".join(
        f'#panel-heads [data-head="{head}"]{{outline:2px solid var(--rv-ink);z-index:1}}'
        for head in chosen
    )
    return f'<style>{rules}.rv-map [data-head="{shown}"]{{box-shadow:inset 0 0 0 2px #fff}}</style>'


def report_tables(report: Mapping[str, Any], benchmark: str) -> str:
    """The tables of one benchmark of a run."""
    parts = []
    for table in tables(report):
        if table.title.partition(",")[0] == benchmark:
            top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.columns)
            parts.append(
                f"<h3>{escape(table.title)}</h3>"
                f'<div class="rv-wide"><table><thead><tr>{top}</tr></thead>'
                f"<tbody>{''.join(map(_row, table.text()))}</tbody></table></div>"
            )
            parts += map(note, table.notes)
    return "".join([*parts, *(note(text) for text in report.get("notes", ()))])


def _row(cells: Sequence[str]) -> str:
    first, *others = map(escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{x}</td>" for x in others)}</tr>'
