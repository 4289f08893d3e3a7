"""The tab Pairs: a person accepts, edits or rejects contrastive pairs, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from rvelens.app.asking import read_picture
from rvelens.app.examples import example_pairs
from rvelens.app.markup import escape, note
from rvelens.app.recent import (
    EXAMPLE,
    Paths,
    chosen_paths,
    recent_html,
    remember,
    remembered_by_browser,
)
from rvelens.app.shared import PATH, SKIP, catch, clickable, in_turn
from rvelens.files.atomic import one_line
from rvelens.files.paths import path_below
from rvelens.pairs.review import ReviewRow, Span, decide, marks, pending, read_reviewed
from rvelens.studies.cases.pictures import small, to_data_uri


def build_pairs_tab(page: gr.Blocks, tabs: gr.HTML, examples: Path) -> None:
    """The tab's fields and what they do; it opens with an example, made in the folder `examples`."""
    at, own, recent = gr.State(""), gr.State(None), remembered_by_browser("pairs")
    offered = clickable("recent", recent_html([]), elem_id="pairs-recent")
    with gr.Row(equal_height=True):
        path = gr.Textbox(
            EXAMPLE,
            label="File of pairs (rvelens pairs make -o)",
            elem_id="pairs-file",
            scale=3,
            **PATH,
        )
        images = gr.Textbox(
            label="Folder of their pictures", elem_id="pairs-images", scale=3, **PATH
        )
        button = gr.Button("Open", variant="primary", elem_id="pairs-open", scale=1, min_width=100)
    problem = gr.HTML(elem_id="pairs-problem", elem_classes="rv-problem")
    with gr.Column(visible=False) as opened:
        card = gr.HTML(elem_id="pairs-card")
        text = gr.Textbox(label="Contrastive question", elem_id="pairs-text")
        with gr.Row():
            accept = gr.Button("Accept", variant="primary", elem_id="pairs-accept", min_width=90)
            edit = gr.Button("Save edit", elem_id="pairs-edit", min_width=90)
            reject = gr.Button("Reject", elem_id="pairs-reject", min_width=90)
        with gr.Row():
            back = gr.Button("Back", size="sm", elem_id="pairs-back", min_width=90)
            forth = gr.Button("Next", size="sm", elem_id="pairs-next", min_width=90)
            open_one = gr.Button("Next undecided", size="sm", min_width=90)

    def start(file: str, folder: str, last: Any) -> Sequence[Any]:
        is_example = file.strip() == EXAMPLE
        real = example_pairs(examples) if is_example else Path(file.strip()).expanduser()
        pictures = str(real.parent) if is_example else folder
        rows = _rows("" if not file.strip() else str(real))
        _folder(pictures)
        waiting, paths = pending(rows), remember(last, file, folder)
        return (
            *_show(rows, pictures, (waiting or rows)[0]), gr.Column(visible=True),
            (str(real), pictures), paths, recent_html(paths),
        )  # fmt: skip

    def first_look(file: str, folder: str, last: Any, shown: str, event: gr.EventData) -> Any:
        """The example, where a person comes to the tab and nothing is open."""
        if event.value != "pairs" or shown or file.strip() != EXAMPLE:
            return (SKIP,) * 7
        return start(file, folder, last)

    def take(last: Any, event: gr.EventData) -> Sequence[Any]:
        file, folder = chosen_paths(event.value)
        return (file, folder, *start(file, folder, last))

    def deciding(decision: str) -> Callable[..., Sequence[Any]]:
        def on_click(paths: Paths | None, here: str, words: str) -> Sequence[Any]:
            file, folder = paths or ("", "")
            decide(file.strip(), here, decision, words.strip() if decision == "edit" else None)
            rows = _rows(file)
            return _show(rows, folder, next_undecided(rows, here))

        return on_click

    def moving(step: Callable[[list[ReviewRow], str], ReviewRow]) -> Callable[..., Sequence[Any]]:
        def on_click(paths: Paths | None, here: str) -> Sequence[Any]:
            file, folder = paths or ("", "")
            rows = _rows(file)
            return _show(rows, folder, step(rows, here))

        return on_click

    shown = [at, card, text]
    closed = ("", "", "", gr.update(visible=False), None, SKIP, SKIP)
    everything = [*shown, opened, own, recent, offered, problem]
    # Apart from the model: a person decides while it is at work.
    queue = in_turn("pairs")
    gr.on(
        [button.click, images.submit],
        catch(start, closed), [path, images, recent], everything, **queue,
    )  # fmt: skip
    tabs.select(catch(first_look, closed), [path, images, recent, at], everything, **queue)
    offered.select(catch(take, (SKIP, SKIP, *closed)), recent, [path, images, *everything], **queue)
    page.load(recent_html, recent, offered)
    for control, decision in ((accept, "accept"), (edit, "edit"), (reject, "reject")):
        control.click(
            catch(deciding(decision), (SKIP,) * 3),
            [own, at, text],
            [*shown, problem],
            **queue,
        )
    for control, step in (
        (back, lambda rows, here: neighbour(rows, here, -1)),
        (forth, lambda rows, here: neighbour(rows, here, 1)),
        (open_one, next_undecided),
    ):
        control.click(catch(moving(step), (SKIP,) * 3), [own, at], [*shown, problem], **queue)


def _rows(file: str) -> list[ReviewRow]:
    if not file.strip():
        raise ValueError(
            "no file is given: expected a file that `rvelens pairs make` wrote; enter its path."
        )
    return read_reviewed(file.strip())


def _folder(folder: str) -> Path:
    if not Path(folder.strip()).is_dir() or not folder.strip():
        raise ValueError(
            f"no folder {folder.strip()!r}: expected the folder with the pairs' images; check the path."
        )
    return Path(folder.strip())


def _show(rows: list[ReviewRow], folder: str, row: ReviewRow) -> tuple[str, str, str]:
    return row["id"], pair_card(rows, row, _folder(folder)), row["contrastive"]


def neighbour(rows: list[ReviewRow], here: str, step: int) -> ReviewRow:
    """The pair before or behind one, round at the ends."""
    ids = [row["id"] for row in rows]
    return rows[((ids.index(here) if here in ids else 0) + step) % len(rows)]


def next_undecided(rows: list[ReviewRow], here: str) -> ReviewRow:
    """The next pair that waits for a decision, first behind this one; this one if none waits."""
    ids = [row["id"] for row in rows]
    start = ids.index(here) if here in ids else 0
    in_turn = rows[start + 1 :] + rows[: start + 1]
    return next((row for row in in_turn if row["decision"] is None), rows[start])


def pair_card(rows: list[ReviewRow], row: ReviewRow, folder: Path) -> str:
    """The pair with its picture and its verbs marked, and how far the review is."""
    spans = marks(row) or (None, None)
    texts = (row["question"], row["contrastive"])
    first, second = (marked(text, span) for text, span in zip(texts, spans, strict=True))
    try:
        frame = small(read_picture(path_below(folder, row["image"])))
        shown = f'<figure><img src="{to_data_uri(frame)}" alt="the picture of the pair"></figure>'
    except ValueError as error:
        shown = note(one_line(error))
    state = row["decision"] or "undecided"
    return (
        f'{_progress(rows)}<div class="rv-pair">{shown}<div><p class="rv-note">{escape(row["id"])} · '
        f'<b>{escape(state)}</b></p><p class="rv-text">{first}</p><p class="rv-text">{second}</p>'
        f"{'' if marks(row) else note('The texts differ in more than one word.')}</div></div>"
    )


def marked(text: str, span: Span | None) -> str:
    """A text with a part marked."""
    if span is None:
        return escape(text)
    start, end = span
    return f"{escape(text[:start])}<mark>{escape(text[start:end])}</mark>{escape(text[end:])}"


def _progress(rows: list[ReviewRow]) -> str:
    counts = Counter(row["decision"] or "undecided" for row in rows)
    done = len(rows) - counts["undecided"]
    words = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    return (
        f'<div class="rv-bar rv-progress"><span>{done} of {len(rows)}</span>'
        f'<i><b style="width:{100 * done / len(rows):.1f}%"></b></i><span>{escape(words)}</span></div>'
    )
