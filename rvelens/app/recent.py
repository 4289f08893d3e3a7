"""Folders and files that a person opened lately, kept by the person's browser, as buttons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from rvelens.app.markup import escape

# What stands in a field for a path while the example is open.
EXAMPLE = "the example"
_MOST = 6
# Two paths that were opened together: a run and its pictures, a file of pairs and its pictures.
Paths = tuple[str, str]


def remembered_by_browser(name: str) -> gr.BrowserState:
    """A list of `Paths` that the browser keeps for this page alone; the server keeps none."""
    # Not a secret: it lets the next server read what the browser kept.
    return gr.BrowserState([], storage_key=f"rvelens-{name}", secret="rvelens")


def read_paths(stored: Any) -> list[Paths]:
    """The paths that a browser kept; whatever else it sends is dropped."""
    if not isinstance(stored, list):
        return []
    pairs = [tuple(pair) for pair in stored if isinstance(pair, list | tuple) and len(pair) == 2]
    return [(a, b) for a, b in pairs if isinstance(a, str) and isinstance(b, str)][:_MOST]


def remember(stored: Any, first: str, second: str) -> list[Paths]:
    """The list with two paths in front; the example is not kept."""
    paths, new = read_paths(stored), (first.strip(), second.strip())
    if new[0] == EXAMPLE:
        return paths
    absolute = (str(Path(new[0]).expanduser().absolute()), new[1])
    return [absolute, *(path for path in paths if path[0] != absolute[0])][:_MOST]


def recent_html(stored: Any, nearby: Sequence[Paths] = ()) -> str:
    """A button for the example, and for each pair of paths that is kept or near."""
    paths = read_paths(stored)
    names = {path[0] for path in paths}
    paths += [path for path in nearby if path[0] not in names]
    buttons = [_button((EXAMPLE, ""), EXAMPLE), *(_button(path, _short(path[0])) for path in paths)]
    return f'<div class="rv-recent"><span>Open</span>{"".join(buttons)}</div>'


def chosen_paths(value: str) -> Paths:
    """The paths of a button that was clicked on."""
    first, second = json.loads(value)
    return str(first), str(second)


def _button(paths: Paths, label: str) -> str:
    value = escape(json.dumps(paths))
    return (
        f'<button type="button" data-recent="{value}" title="{escape(paths[0])}">'
        f"{escape(label)}</button>"
    )


def _short(path: str) -> str:
    """The last two names of a path."""
    return "/".join(Path(path).parts[-2:])


def nearby_runs() -> list[Paths]:
    """Runs of `rvelens eval` in the folder that the explorer was started in."""
    reports = sorted(Path.cwd().glob("*/report.json"))[:_MOST]
    return [(str(report.parent), "") for report in reports]
