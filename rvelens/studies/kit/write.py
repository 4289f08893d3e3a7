"""A study's files: JSON, CSV, Markdown, figures as PNG and SVG, pages."""

from __future__ import annotations

import csv
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group
from rich.table import Table as RichTable
from rich.text import Text

from rvelens.files import write_json, write_text
from rvelens.plots import save_figure
from rvelens.studies.kit.base import Cell, Shown, Study, Table


def write(
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
        {"made_with": dict(made), "measured": one}
        for made, one in zip(made_with, data, strict=True)
    ]
    files = [out / f"{study.name}.json"]
    whole = {"study": study.name, "paper": study.paper, "models": measured, "says": shown.says}
    write_json(files[0], whole)
    for name, table in shown.tables.items():
        files.append(out / f"{_stem(study, name)}.csv")
        _write_csv(files[-1], table)
    for name, figure in shown.figures.items():
        for ending in ("png", "svg"):
            files.append(out / f"{_stem(study, name)}.{ending}")
            save_figure(figure, files[-1])
    for name, page in shown.pages.items():
        files.append(out / f"{_stem(study, name)}.html")
        write_text(files[-1], page)
    files.append(out / f"{study.name}.md")
    write_text(files[-1], to_markdown(study, shown))
    return files


def _stem(study: Study, name: str) -> str:
    return f"{study.name}-{name}" if name else study.name


def _write_csv(path: Path, table: Table) -> None:
    """Cells unrounded; an estimate takes three columns."""
    wide = [
        any(isinstance(row[n], Mapping) for row in table.rows) for n in range(len(table.columns))
    ]
    header: list[str] = []
    for name, is_wide in zip(table.columns, wide, strict=True):
        header += [name, f"{name} low", f"{name} high"] if is_wide else [name]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in table.rows:
            writer.writerow(
                [x for cell, w in zip(row, wide, strict=True) for x in _spread(cell, w)]
            )


def _spread(cell: Cell, wide: bool) -> list[Any]:
    if isinstance(cell, Mapping):
        return [cell["value"], cell["low"], cell["high"]]
    return [cell, None, None] if wide else [cell]


def shown_cell(cell: Cell, signed: bool) -> str:
    """A cell as it is read: three decimals (one digit below 0.0005), an interval in brackets."""
    sign = "+" if signed else ""
    if cell is None:
        return ""
    if isinstance(cell, Mapping):
        value, low, high = (format(cell[k], f"{sign}.3f") for k in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    if isinstance(cell, float):
        tiny = 0 < abs(cell) < 0.0005  # as p may be, and is not 0
        return format(cell, f"{sign}.0e" if tiny else f"{sign}.3f")
    return str(cell)


def render(shown: Shown) -> Group:
    """For a rich console."""
    parts: list[Any] = []
    for table in shown.tables.values():
        if table.aside:
            parts.append(Text(f"{table.title}: {len(table.rows)} rows, in the files.\n"))
            continue
        parts += [_Terminal(table), *(Text(note) for note in table.notes), Text("")]
    return Group(*parts, *(Text(f"- {line}") for line in shown.says))


@dataclass(frozen=True)
class _Terminal:
    """A table whose numbers have their intervals beside them if there is room, and else below.

    Columns that must not fold would be cut, and rich takes the first one away altogether.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        """What rich prints."""
        table, text = self.table, _text(self.table)
        of_numbers = [
            any(isinstance(row[n], Mapping) for row in table.rows)
            for n in range(len(table.columns))
        ]
        needed = sum(
            2 + max(len(piece) for cell in cells for piece in ([cell] if whole else cell.split()))
            for whole, cells in zip(of_numbers, zip(table.columns, *text, strict=True), strict=True)
            if any(cells)
        )
        beside = needed <= options.max_width
        view = RichTable(title=table.title, title_justify="left", title_style="bold", box=None)
        for n, (name, whole) in enumerate(zip(table.columns, of_numbers, strict=True)):
            side = "left" if n == 0 else "right"
            view.add_column(name, justify=side, no_wrap=whole and beside, overflow="fold")
        for row in text:
            cells = (
                cell.replace(" [", "\n[") if whole and not beside else cell
                for cell, whole in zip(row, of_numbers, strict=True)
            )
            view.add_row(*map(Text, cells))
        yield view


def to_markdown(study: Study, shown: Shown) -> str:
    """Tables, sentences, and how to get them again."""
    title = f"{study.name}: {study.about}" + (f" ({study.paper})" if study.paper else "")
    lines = [f"# {title}", ""]
    for table in shown.tables.values():
        lines += [f"**{table.title}**", "", _line(table.columns)]
        lines.append(_line(_alignment(table)))
        lines += [_line(row) for row in _text(table)]
        lines += ["", *(f"{note}\n" for note in table.notes)]
    lines += [f"- {line}" for line in shown.says]
    lines += ["", f"What it was made with is in {study.name}.json."]
    return "\n".join(lines) + "\n"


def _alignment(table: Table) -> list[str]:
    """Numbers to the right, under each other; what is text to the left."""
    columns = zip(*_text(table), strict=True) if table.rows else ((),) * len(table.columns)
    of_text = [any(cell and not cell.lstrip("+-")[:1].isdigit() for cell in c) for c in columns]
    return ["---" if text or n == 0 else "--:" for n, text in enumerate(of_text)]


def _text(table: Table) -> list[list[str]]:
    signed = [column in table.signed for column in table.columns]
    return [
        [shown_cell(cell, s) for cell, s in zip(row, signed, strict=True)] for row in table.rows
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(html.escape(c, quote=False).replace("|", "\\|") for c in cells) + " |"
