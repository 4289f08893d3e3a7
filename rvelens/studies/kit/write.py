"""A study's files: JSON, CSV, Markdown, figures as PNG and SVG, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from rvelens.files.atomic import write_json, write_text
from rvelens.plots import save_figure
from rvelens.studies.kit.base import Shown, Study
from rvelens.tables import markdown_text


def write_study(
    out: Path,
    study: Study,
    made_with: Sequence[Mapping[str, Any]],
    data: Sequence[Any],
    shown: Shown,
) -> list[Path]:
    """Write everything of a study into a folder; returns the files.

    Args:
        out: the folder.
        study: which one.
        made_with: manifests, one a model.
        data: what was measured, one a model.
        shown: its tables, figures and pages.
    """
    measured = [
        {"made_with": dict(made), "measured": measurement}
        for made, measurement in zip(made_with, data, strict=True)
    ]
    files = [out / f"{study.name}.json"]
    whole = {"study": study.name, "paper": study.paper, "models": measured, "says": shown.sentences}
    write_json(files[0], whole)
    for name, table in shown.tables.items():
        files.append(out / f"{_stem(study, name)}.csv")
        write_text(files[-1], table.to_csv())
    for name, figure in shown.figures.items():
        for ending in ("png", "svg"):
            files.append(out / f"{_stem(study, name)}.{ending}")
            save_figure(figure, files[-1])
    for name, page in shown.pages.items():
        files.append(out / f"{_stem(study, name)}.html")
        write_text(files[-1], page)
    files.append(out / f"{study.name}.md")
    write_text(files[-1], study_to_markdown(study, shown))
    return files


def _stem(study: Study, name: str) -> str:
    return f"{study.name}-{name}" if name else study.name


def render_study(shown: Shown) -> Group:
    """For a rich console."""
    parts = [part for table in shown.tables.values() for part in (table, Text())]
    return Group(*parts, *(Text(f"- {line}") for line in shown.sentences))


def study_to_markdown(study: Study, shown: Shown) -> str:
    """Tables, sentences, and how to get them again."""
    title = f"{study.name}: {study.about}" + (f" ({study.paper})" if study.paper else "")
    lines = [f"# {title}", ""]
    for table in shown.tables.values():
        lines += [f"**{markdown_text(table.title)}**", "", table.to_markdown()]
        lines += ["", *(f"{markdown_text(note)}\n" for note in table.notes)]
    lines += [f"- {markdown_text(line)}" for line in shown.sentences]
    lines += ["", f"What it was made with is in {study.name}.json."]
    return "\n".join(lines) + "\n"
