"""Answers side by side, token by token: each word over the picture with where it looked, as HTML."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from rvelens.app.asking import PLAIN, Column, Comparison
from rvelens.app.markup import bars, escape, note, scale
from rvelens.app.pictures import CHANGE, HEAT, changed, heated
from rvelens.app.truth import Truth, truth_of
from rvelens.benchmarks.rules import strict
from rvelens.model.trace import TracedAnswer
from rvelens.studies.cases.pictures import small, to_data_uri
from rvelens.tokens.grid import Box, ImageGrid

ATTENTION, CHANGED = "attention", "change"
# Pixels of the longer edge of a token's picture: of short answers, and of long ones.
_EDGE, _EDGE_OF_MANY, _MANY = 448, 256, 18


@dataclass(frozen=True)
class Focus:
    """What of the answers is on show.

    Attributes:
        layer: None for the mean over all layers.
        step: number of the token, from 0.
        show: `ATTENTION`, or `CHANGED` for its difference to the plain model's.
    """

    layer: int | None = None
    step: int = 0
    show: str = ATTENTION


def checked_view(view: Focus, comparison: Comparison) -> Focus:
    """The view within what these answers have; what they lack becomes the nearest that they have."""
    n_layers = comparison.trace.answers[0].attention.shape[1]
    layer = None if view.layer is None else min(max(view.layer, 0), n_layers - 1)
    show = view.show if view.show in (ATTENTION, CHANGED) else ATTENTION
    return Focus(layer, min(max(view.step, 0), n_steps(comparison) - 1), show)


def n_steps(comparison: Comparison) -> int:
    """Tokens of the longest answer."""
    return max(len(column.traced.ids) for column in comparison.columns)


def viewer(comparison: Comparison, view: Focus, link: str) -> str:
    """All answers in columns, with sliders for layer and token; `link` is the state of the address."""
    truth, view = truth_of(comparison.image, comparison.question), checked_view(view, comparison)
    largest, boxes = tops(comparison, view), _boxes(comparison, truth)
    painted = _painted(comparison, view, largest, boxes)
    columns = "".join(
        _column(column, view, truth, shots)
        for column, shots in zip(comparison.columns, painted, strict=True)
    )
    return (
        f'<div class="rv-trace" data-step="{view.step}" data-link="{escape(link)}" '
        f'data-number="{secrets.token_hex(4)}">'
        f"{_question(comparison, truth)}{_controls(comparison, view)}"
        f'<div class="rv-columns n{len(comparison.columns)}">{columns}</div>'
        f"{_legend(comparison, view, largest, boxes)}</div>"
    )


def _question(comparison: Comparison, truth: Truth | None) -> str:
    """The question, and its true answer where that is known."""
    chip = ""
    if truth is not None and truth.answer is not None:
        chip = f' <span class="rv-chip">the truth: {"yes" if truth.answer else "no"}</span>'
    return f'<p class="rv-asked"><span dir="auto">{escape(comparison.question)}</span>{chip}</p>'


def _controls(comparison: Comparison, view: Focus) -> str:
    """Sliders for layer and token, what to show, and the switch for drawing."""
    n_layers = comparison.trace.answers[0].attention.shape[1]
    layer = -1 if view.layer is None else view.layer
    words = "all layers" if view.layer is None else f"layer {view.layer}"
    switches = "".join(
        f'<button type="button" data-show="{name}" aria-pressed="{str(name == view.show).lower()}">'
        f"{name}</button>"
        for name in (ATTENTION, CHANGED)
    )
    draw = (
        '<button type="button" data-draw aria-pressed="false" title="then drag a box on a picture: '
        'the model is steered to it">Draw a region</button>'
    )
    return (
        '<div class="rv-controls">'
        f'<label>Layer<input type="range" data-slide="layer" min="-1" max="{n_layers - 1}" '
        f'value="{layer}" aria-valuetext="{words}"><output>{words}</output></label>'
        f'<label>Token<input type="range" data-slide="step" min="0" max="{n_steps(comparison) - 1}" '
        f'value="{view.step}"{" disabled" * (n_steps(comparison) == 1)}><output>{view.step + 1} of '
        f"{n_steps(comparison)}</output></label>"
        f'<span class="rv-switch" role="group" aria-label="what the pictures show">{switches}</span>'
        f"{draw if comparison.trace.grid else ''}</div>"
    )


def _column(column: Column, view: Focus, truth: Truth | None, shots: Sequence[str]) -> str:
    """One answer: its words, its first token's probabilities, and the picture of each token."""
    role = "plain" if column.name == PLAIN else "steered"
    figures = "".join(
        f'<figure data-step="{n}"{_on(n == view.step)}>{shot}</figure>'
        for n, shot in enumerate(shots)
    )
    return (
        f'<section class="rv-answer rv-{role}"><h3>{escape(column.name)}'
        f"{_verdict(column.answer.text, truth)}</h3>{_words(column.traced, view.step)}"
        f"{bars(column.answer)}{figures}</section>"
    )


def _verdict(text: str, truth: Truth | None) -> str:
    """Right or wrong by the strict rule, where the truth is known."""
    if truth is None or truth.answer is None:
        return ""
    word = "right" if strict(text) is truth.answer else "wrong"
    return f' <span class="rv-verdict {word}">{word}</span>'


def _words(traced: TracedAnswer, step: int) -> str:
    """The tokens in a row, each a button; the one that ends the answer in small print."""
    words, last = [], len(traced.pieces) - 1
    for n, piece in enumerate(traced.pieces):
        word, share = piece.strip(), float(traced.log_probs[n].exp())
        is_end = n == last and bool(word) and not traced.text.endswith(word)
        space = " " if n and piece[:1].isspace() else ""
        words.append(
            f'{space}<button type="button" data-step="{n}"{_on(n == step, "rv-end" * is_end)} '
            f'tabindex="{-int(n > 0)}" title="{share:.1%}">{escape(word) or "&#9251;"}</button>'
        )
    return f'<p class="rv-words" dir="auto">{"".join(words)}</p>'


def _on(shown: bool, more: str = "") -> str:
    names = " ".join(filter(None, ["on" * shown, more]))
    return f' class="{names}"' if names else ""


def _painted(
    comparison: Comparison, view: Focus, largest: tuple[float, float], boxes: str
) -> list[list[str]]:
    """For each answer and each step of the longest one, a picture with its caption."""
    grid, steps = comparison.trace.grid, n_steps(comparison)
    if grid is None:
        return [[] for _ in comparison.columns]
    many = steps * len(comparison.columns) > _MANY
    picture = small(comparison.image, _EDGE_OF_MANY if many else _EDGE)
    painter = _Painter(comparison.columns[0], view, picture, grid, *largest)
    return [
        [_shot(*painter.paint(column, n), boxes) for n in range(steps)]
        for column in comparison.columns
    ]


def _shot(picture: Image.Image, caption: str, boxes: str) -> str:
    return (
        f'<div class="rv-shot"><img src="{to_data_uri(picture)}" alt="{escape(caption)}" '
        f'draggable="false">{boxes}</div><figcaption>{escape(caption)}</figcaption>'
    )


def _boxes(comparison: Comparison, truth: Truth | None) -> str:
    """The true region, and the region that was steered to, as frames over a picture."""
    frames = [("rv-true", box) for box in (truth.boxes if truth else ())]
    for column in comparison.columns:
        if "region" in column.method.parameters:
            x0, y0, x1, y1 = column.method.parameters["region"]
            frames.append(("rv-region", (x0, y0, x1, y1)))
    return "".join(_frame(name, box, comparison.image.size) for name, box in frames)


def _frame(name: str, box: Box, size: tuple[int, int]) -> str:
    x0, y0, x1, y1 = (100 * at / size[n % 2] for n, at in enumerate(box))
    return (
        f'<i class="{name}" style="left:{x0:.2f}%;top:{y0:.2f}%;width:{x1 - x0:.2f}%;'
        f'height:{y1 - y0:.2f}%"></i>'
    )


@dataclass(frozen=True, eq=False)
class _Painter:
    """Pictures of tokens, all on one scale: up to `top`, or `most` for changes."""

    plain: Column
    view: Focus
    picture: Image.Image
    grid: ImageGrid
    top: float
    most: float

    def paint(self, column: Column, step: int) -> tuple[Image.Image, str]:
        """The picture of a token of an answer, and its caption."""
        traced = column.traced
        if step >= len(traced.ids):
            return self.picture, "this answer has ended"
        word = traced.pieces[step].strip()
        if self.view.show == CHANGED and column is not self.plain:
            change = change_of(column, self.plain, step, self.view.layer)
            if change is None:
                return self.picture, f"{word}: the answers differ before this token"
            shown = changed(self.picture, change, self.grid, self.most)
            return shown, f"{word}: {100 * change.sum():+.1f} points on the image"
        values = map_of(column, step, self.view.layer)
        shown = heated(self.picture, values, self.grid, self.top)
        return shown, f"{word}: {values.sum():.1%} on the image"


def map_of(column: Column, step: int, layer: int | None) -> Float[np.ndarray, " image"]:
    """Attention to each image token for one token of an answer, mean over heads."""
    return column.traced.map_of(step, None if layer is None else [layer])


def change_of(
    column: Column, plain: Column, step: int, layer: int | None
) -> Float[np.ndarray, " image"] | None:
    """`map_of` less the plain model's; None where the tokens before differ."""
    if step >= len(plain.traced.ids) or not bool(
        (column.traced.ids[:step] == plain.traced.ids[:step]).all()
    ):
        return None
    return map_of(column, step, layer) - map_of(plain, step, layer)


def tops(comparison: Comparison, view: Focus) -> tuple[float, float]:
    """The largest value, and the largest change, of all pictures of a view: one scale for all."""
    plain, maps, changes = comparison.columns[0], [0.0], [0.0]
    for column in comparison.columns:
        for step in range(len(column.traced.ids)):
            maps.append(float(map_of(column, step, view.layer).max()))
            change = change_of(column, plain, step, view.layer)
            changes.append(0.0 if change is None else float(np.abs(change).max()))
    return max(maps), max(changes)


def _legend(comparison: Comparison, view: Focus, largest: tuple[float, float], boxes: str) -> str:
    """Scales, frames, and what the numbers are."""
    if comparison.trace.grid is None:
        return note("The image tokens of this family have no place in the picture: none is drawn.")
    top, most = largest
    scales = scale(HEAT, "0", f"{top:.2g}", "attention to an image token")
    if view.show == CHANGED:
        scales += scale(CHANGE, f"\u2212{most:.2g}", f"+{most:.2g}", "change against plain")
    frames = [
        ("rv-true", "where one must look for the truth" if "rv-true" in boxes else ""),
        ("rv-region", "the region of the method region" if "rv-region" in boxes else ""),
    ]
    keys = "".join(
        f'<p class="rv-scale"><b class="{name}"></b>{words}</p>' for name, words in frames if words
    )
    where = "all layers" if view.layer is None else f"layer {view.layer}"
    return f'<div class="rv-legend">{scales}{keys}</div>' + note(
        f"Point at a word. Attention of the row that predicts it, after softmax, mean over the heads "
        f"of {where}; not renormalised: its sum is what the image gets. Bars: the first token."
    )
