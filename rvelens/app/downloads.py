"""Files that the page hands to the browser, in the page itself: none is written on the server."""

from __future__ import annotations

import base64
import secrets
import tempfile
from pathlib import Path

import gradio as gr
from matplotlib.figure import Figure

from rvelens.app.markup import escape
from rvelens.plots import save_figure

_MEDIA = {
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_TOOLS = {
    "python": "Copy as Python",
    "manifest": "Save manifest",
    "pdf": "Figure as PDF",
    "png": "Figure as PNG",
}
FIGURE = ("pdf", "png")
# A link that appears is followed once: that saves the file. Gradio may put a new link's attributes on
# the element of the last one, so each link has a number.
_SAVE = """let last = null;
new MutationObserver(() => {
  const link = element.querySelector('a[download]');
  if (!link || link.dataset.number === last) return;
  last = link.dataset.number;
  link.click();
}).observe(element, {subtree: true, childList: true, attributeFilter: ['data-number']});"""


def downloads(elem_id: str) -> gr.HTML:
    """Where `file_link` goes; what it shows is saved by the browser."""
    return gr.HTML(elem_id=elem_id, elem_classes="rv-download", js_on_load=_SAVE)


def tools_html(python: str, *files: str) -> str:
    """Buttons that copy a tab's program and save its files, and the program itself."""
    buttons = "".join(
        f'<button type="button" data-tool="{kind}">{_TOOLS[kind]}</button>'
        for kind in ("python", *files)
    )
    return (
        f'<div class="rv-tools">{buttons}</div><details class="rv-code"><summary>The same in Python'
        f'</summary><pre dir="ltr" tabindex="0">{escape(python)}</pre></details>'
    )


def file_link(name: str, content: bytes) -> str:
    """A file as a link that holds it."""
    media, data = _MEDIA[Path(name).suffix], base64.b64encode(content).decode("ascii")
    return (
        f'<a download="{escape(name)}" data-number="{secrets.token_hex(4)}" '
        f'href="data:{media};base64,{data}">{escape(name)}</a>'
    )


def figure_link(name: str, figure: Figure) -> str:
    """A figure as a link that holds it, in the format of the name's ending."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        save_figure(figure, path)
        return file_link(name, path.read_bytes())
