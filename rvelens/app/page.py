"""The page of all tabs, and the local server that shows it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

import rvelens
from rvelens.app import tab_ask, tab_heads, tab_pairs, tab_runs
from rvelens.app.layout import folded, panel, tabs
from rvelens.app.markup import escape, note
from rvelens.app.models import Models
from rvelens.app.shared import PATH, told
from rvelens.app.theme import css, theme

HOST = "127.0.0.1"


def build(models: Models, name: str, *, webcam: bool = False) -> gr.Blocks:
    """The page.

    Args:
        models: where models are loaded.
        name: the model that the page opens with; it is loaded already.
        webcam: offer the webcam as a source of pictures.
    """
    with gr.Blocks(title="rvelens explorer", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head())
        model = gr.State(name)
        about = gr.HTML(lambda: note(models.get(name).says()), elem_id="about")
        with folded("Another model or head profile"), gr.Row(equal_height=True):
            wanted = gr.Textbox(
                name, label="Model: a hub name, a folder or rvelens/tiny", elem_id="model", **PATH
            )
            profile = gr.Textbox(
                label="Head profile: a file, published, or nothing", elem_id="profile", **PATH
            )
            load = gr.Button("Load", elem_id="load", min_width=90)
        problem = gr.HTML(elem_id="model-problem", elem_classes="rv-problem")
        tabs(["ask", "heads", "pairs", "runs"])
        with panel("ask"):
            tab_ask.build(models, model, webcam)
        with panel("heads"):
            tab_heads.build(models, name, model, webcam, about)
        with panel("pairs"):
            tab_pairs.build()
        with panel("runs"):
            tab_runs.build(models, model)

        def loading(chosen: str, ranking: str) -> Sequence[Any]:
            loaded = models.profiled(chosen, ranking) if ranking.strip() else models.get(chosen)
            return chosen.strip(), note(loaded.says())

        # Load events come after Gradio has put its initial values in: only then is the page shown.
        page.load(None, js="() => { document.documentElement.dataset.rvReady = '' }")
        load.click(
            told(loading, 2), [wanted, profile], [model, about, problem], concurrency_id="model"
        )
    return page


def _head() -> str:
    return (
        '<header class="rv-head"><h1>rvelens <span>explorer</span></h1>'
        "<p>What a vision-language model attends to, and what it answers when that is changed.</p>"
        f"<small>{escape(rvelens.__version__)} · runs on this machine alone</small></header>"
    )


@contextmanager
def served(
    models: Models, name: str, *, port: int = 0, webcam: bool = False, browser: bool = False
) -> Iterator[str]:
    """Serve the page on 127.0.0.1 until the block ends; gives its address.

    Nothing is sent anywhere, and uploads are in a temporary folder that is removed at the end.

    Args:
        models, name, webcam: as of `build`.
        port: 0 for a free one.
        browser: open a browser on the page.

    Raises:
        OSError: the port is taken.
    """
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (
        tempfile.TemporaryDirectory(prefix="rvelens-app-") as uploads,
        _environment({**quiet, "GRADIO_TEMP_DIR": uploads}),
    ):
        page = build(models, name, webcam=webcam)
        try:
            _, address, _ = page.queue(default_concurrency_limit=4).launch(
                server_name=HOST,
                server_port=port or free_port(),
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=browser,
                inline=False,
                # No check of its own address: it gives up, for good, where the first page takes 3 s.
                _frontend=False,
                share=False,
                ssr_mode=False,
                footer_links=[],
                run_history=False,
                max_file_size="200mb",
                theme=theme(),
                css=css(),
            )
            yield address
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, which Gradio reads while it runs, until the block ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
