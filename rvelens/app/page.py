"""The page of all tabs, and the local server that shows it."""

from __future__ import annotations

import os
import secrets
import socket
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

import rvelens
from rvelens.app import tab_ask, tab_heads, tab_pairs, tab_runs
from rvelens.app.guard import Guard
from rvelens.app.layout import folded, panel, tabs
from rvelens.app.markup import escape, note
from rvelens.app.models import Choice, Models, save_profile
from rvelens.app.profile_link import (
    NOT_CARRIED,
    WRITE_PROFILE,
    is_carried,
    profile_part,
    read_profile_link,
)
from rvelens.app.shared import IN_TURN, PATH, SKIP, catch, script
from rvelens.app.theme import css, theme
from rvelens.app.uploads import upload_folder

HOST = "127.0.0.1"


def _build(models: Models, start: Choice, examples: Path, *, webcam: bool = False) -> gr.Blocks:
    """The page.

    Args:
        models: where models are loaded.
        start: the model and the head profile that each window opens with.
        examples: the folder that examples are made in.
        webcam: offer the webcam as a source of pictures.
    """
    with gr.Blocks(title="rvelens explorer", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head())
        model = gr.State(start)  # of one window
        of_address = gr.Textbox(profile_part(start), visible="hidden")  # the profile
        about = gr.HTML(lambda: _about(models, start), elem_id="about")
        problem = _choosing(models, start, model)
        # The one place that writes these: they cannot name another profile than the window's.
        model.change(
            lambda choice: (_about(models, choice), profile_part(choice)),
            model,
            [about, of_address],
        )
        of_address.change(None, of_address, None, js=WRITE_PROFILE)
        opened = tabs(["ask", "heads", "pairs", "runs"])
        with panel("ask"):
            on_load = tab_ask.build_ask_tab(models, start, model, webcam)
        with panel("heads"):
            of_heads = tab_heads.build_heads_tab(models, start, model, webcam, opened)
        with panel("pairs"):
            tab_pairs.build_pairs_tab(page, opened, examples)
        with panel("runs"):
            tab_runs.build_runs_tab(models, model, page, opened, examples)
        # Load events come after Gradio has put its initial values in: only then is the page shown.
        of_profile = (_restore_profile(models, start), [model, of_address, problem], WRITE_PROFILE)
        on_load(page, of_heads, of_profile, "() => window.rvReady()")
    return page


def _about(models: Models, choice: Choice) -> str:
    """The window's model and profile in one line, and whether an address carries the profile."""
    line = note(models.loaded(choice).describe())
    return line if is_carried(choice) else line + note(NOT_CARRIED)


def _restore_profile(models: Models, start: Choice) -> Callable[[str], Sequence[Any]]:
    """What gives the window's model, and the address its profile, by an address."""

    def restore(query: str) -> Sequence[Any]:
        choice = read_profile_link(models, start, query)
        return (SKIP, SKIP) if choice is None else (choice, profile_part(choice))

    return catch(restore, (SKIP, SKIP))


def _choosing(models: Models, start: Choice, model: gr.State) -> gr.HTML:
    """The fields that change this window's model and profile, save the profile, or start again.

    Returns:
        where their mistakes are named.
    """
    with folded("Another model or head profile"):
        with gr.Row(equal_height=True):
            name_field = gr.Textbox(
                start.name,
                label="Model: a hub name, a folder or rvelens/tiny",
                elem_id="model",
                scale=3,
                **PATH,
            )
            profile = gr.Textbox(
                label="Head profile: a file, a hub name, published, or nothing",
                elem_id="profile",
                scale=3,
                **PATH,
            )
            load = gr.Button("Load", elem_id="load", scale=1, min_width=90)
            reset = gr.Button("Start again", elem_id="reset", scale=1, min_width=120)
        with gr.Row(equal_height=True):
            file = gr.Textbox(
                label="New file for this window's head profile (.safetensors)",
                elem_id="profile-file",
                scale=3,
                **PATH,
            )
            save = gr.Button("Save the profile", elem_id="save-profile", scale=1, min_width=160)
    problem = gr.HTML(elem_id="model-problem", elem_classes="rv-problem")

    def saving(choice: Choice, path: str) -> Sequence[Any]:
        return (save_profile(choice, path),)

    shown = [model, problem]
    load.click(
        catch(lambda name, ranking: (models.choose(name, ranking),), (SKIP,)),
        [name_field, profile], shown, **IN_TURN,
    )  # fmt: skip
    reset.click(lambda: (start, start.name, "", ""), None, [model, name_field, profile, problem])
    save.click(catch(saving, (SKIP,)), [model, file], shown)
    return problem


def _head() -> str:
    return (
        '<header class="rv-head"><h1>rvelens <span>explorer</span></h1>'
        "<p>What a vision-language model attends to, and what it answers when that is changed.</p>"
        f"<small>{escape(rvelens.__version__)} · runs on this machine alone</small></header>"
    )


@contextmanager
def served(
    models: Models, start: Choice, *, port: int = 0, webcam: bool = False, browser: bool = False
) -> Iterator[str]:
    """Serve the page on 127.0.0.1 until the block ends; gives its address with the token.

    Nothing is sent anywhere. Uploads are in a temporary folder that is removed at the end, or at the
    next start if the process is killed. Requests of another host or origin, or without the token, are
    refused, see `Guard`. Gradio's environment variables, such as GRADIO_ALLOWED_PATHS, are ignored.

    Args:
        models, start, webcam: as of `build`.
        port: The port; 0 chooses a free one.
        browser: open a browser on the page.

    Raises:
        OSError: the port is taken.
    """
    port, token = port or free_port(), secrets.token_urlsafe(24)
    guard = Middleware(Guard, token=token, cookie=f"rvelens-{port}")
    with upload_folder() as uploads, _environment(_gradio(str(uploads))):
        page = _build(models, start, uploads.parent / "examples", webcam=webcam)
        try:
            _, address, _ = page.queue(default_concurrency_limit=4).launch(
                server_name=HOST,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=False,  # would open the address without the token
                inline=False,
                app_kwargs={"middleware": [guard]},
                # No check of its own address: it gives up, for good, where the first page takes 3 s.
                _frontend=False,
                share=False,
                ssr_mode=False,
                footer_links=[],
                run_history=False,
                max_file_size="200mb",
                theme=theme(),
                css=css(),
                head=f"<script>{script('explorer.js')}</script>",
            )
            address = f"{address}?token={token}"
            if browser:
                webbrowser.open(address)
            yield address
        finally:
            page.close(verbose=False)


def _gradio(uploads: str) -> dict[str, str | None]:
    """Gradio's variables: none of the user's, which can open folders, a tunnel or another server."""
    inherited = dict.fromkeys(name for name in os.environ if name.startswith("GRADIO_"))
    return {
        **inherited,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": uploads,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables, which Gradio reads while it runs, until the block ends; None is unset."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
