"""One kind of table, shown on a terminal, in Markdown and in CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from rvelens.stats import format_estimate

# An estimate is a mapping with value, low and high.
Cell = str | int | float | Mapping[str, float] | None
_PADDING = 2  # between the columns on a terminal
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets run text that begins so


@dataclass(frozen=True)
class Table:
    """Numbers as they are measured; rounded only where they are shown.

    Attributes:
        title: one line above it.
        columns: names, the first one of what a row is about.
        rows: cells by row.
        signed: columns of differences, shown with their sign.
        notes: sentences below it.
        aside: for its files alone; a terminal shows the title.
        styles: of rich, for cells with these texts on a terminal.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    signed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    aside: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> list[list[str]]:
        """The cells as they are read."""
        signs = [column in self.signed for column in self.columns]
        return [[cell_text(c, s) for c, s in zip(row, signs, strict=True)] for row in self.rows]

    def to_markdown(self) -> str:
        """The header and the rows; title and notes are left to the document."""
        marks = ["---" if side == "left" else "--:" for side in self._sides()]
        return "\n".join(map(markdown_row, (self.columns, marks, *self.text())))

    def to_csv(self) -> str:
        """Cells unrounded; an estimate takes three columns. No text is a spreadsheet's formula."""
        wide = self._estimates()
        header: list[str] = []
        for name, is_wide in zip(self.columns, wide, strict=True):
            header += [name, f"{name} low", f"{name} high"] if is_wide else [name]
        rows = (
            [x for cell, w in zip(row, wide, strict=True) for x in _spread(cell, w)]
            for row in self.rows
        )
        file = io.StringIO()
        csv.writer(file).writerows([_inert(cell) for cell in row] for row in (header, *rows))
        return file.getvalue()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Title, rows and notes, in as many blocks of columns as the width of the terminal takes."""
        if self.aside:
            yield Text(f"{self.title}: {len(self.rows)} rows, in the files.")
            return
        if self.title:
            yield Text(self.title, style="bold")
        text = self.text()
        if text:
            yield from self._blocks(text, options.max_width + _PADDING)  # none at the edges
        yield from map(Text, self.notes)

    def _blocks(self, text: list[list[str]], width: int) -> Iterator[RenderableType]:
        """The whole table if it fits; else intervals below their values, and groups of columns."""
        sides, estimates = self._sides(), self._estimates()
        columns = self._columns(text, estimates, folded=False)
        if sum(column.least + _PADDING for column in columns) > width:
            columns = self._columns(text, estimates, folded=True)
        for number, group in enumerate(_groups(columns, width)):
            if number:
                yield Text()
            yield _block([(columns[n], sides[n]) for n in group], width, self.styles)

    def _columns(self, text: list[list[str]], estimates: list[bool], folded: bool) -> list[_Column]:
        cells = zip(self.columns, *text, strict=True)
        return [
            _Column.of(column, is_estimate, folded)
            for column, is_estimate in zip(cells, estimates, strict=True)
        ]

    def _estimates(self) -> list[bool]:
        """Whether each column holds an estimate."""
        return [
            any(isinstance(row[n], Mapping) for row in self.rows) for n in range(len(self.columns))
        ]

    def _sides(self) -> list[str]:
        """Numbers stand to the right, under each other; text stands to the left."""
        columns = zip(*self.text(), strict=True) if self.rows else ((),) * len(self.columns)
        bare = [[cell.lstrip("+-") for cell in column] for column in columns]
        texts = [any(cell and not cell[0].isdigit() for cell in column) for column in bare]
        return ["left" if is_text or n == 0 else "right" for n, is_text in enumerate(texts)]


def cell_text(cell: Cell, signed: bool = False) -> str:
    """A cell as it is read: three decimals (one digit below 0.0005), an interval in brackets."""
    if cell is None:
        return ""
    if isinstance(cell, Mapping):
        return format_estimate(cell, signed=signed)
    if isinstance(cell, float):
        tiny = 0 < abs(cell) < 0.0005  # as p may be, and is not 0
        return format(cell, f"{'+' if signed else ''}{'.0e' if tiny else '.3f'}")
    return str(cell)


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table; nothing in a cell ends it, or is read as HTML, link or image."""
    escaped = (_unlinked(html.escape(cell, quote=False)).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(" ".join(cell.split("\n")) for cell in escaped) + " |"


def markdown_text(text: str) -> str:
    """A sentence for Markdown, in one line: what others wrote makes no link, image, HTML or heading.

    Models, questions and paths may hold anything; a document that is opened must fetch nothing.
    """
    inert = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", _unlinked(" ".join(text.split())))
    # A bracket at the start is inert, except where a link is defined: "[label]: address".
    return re.sub(r"^(?=\[.*\]:|[#>~])", r"\\", inert)


def markdown_code(text: str) -> str:
    """A text as code within a line, whatever backticks it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{fence}{room}{' '.join(text.split())}{room}{fence}"


def markdown_block(text: str) -> str:
    """A text as a block of code, whatever fences it holds."""
    fence = "~" * max(3, 1 + max(map(len, re.findall("~+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _unlinked(text: str) -> str:
    return text.replace("](", "]\\(")


def _spread(cell: Cell, wide: bool) -> list[str | int | float | None]:
    if isinstance(cell, Mapping):
        return [cell["value"], cell["low"], cell["high"]]
    return [cell, None, None] if wide else [cell]


def _inert(cell: str | int | float | None) -> str | int | float | None:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


@dataclass(frozen=True)
class _Column:
    """A column on a terminal.

    Attributes:
        cells: the header, then the rows.
        natural: its width with no line broken.
        body: its width with no line broken but the header's.
        least: the width of its longest word.
    """

    cells: tuple[str, ...]
    natural: int
    body: int
    least: int

    @classmethod
    def of(cls, cells: Sequence[str], is_estimate: bool, folded: bool) -> _Column:
        """No word is broken, and no estimate but before its interval, if it is folded."""
        fold = is_estimate and folded
        header, *shown = (cell.replace(" [", "\n[") if fold else cell for cell in cells)
        lines = [line for cell in shown for line in cell.split("\n")]
        words = lines if is_estimate else [word for line in lines for word in line.split()]
        natural, body, least = (
            max(map(cell_len, texts), default=0)
            for texts in ([header, *lines], [*header.split(), *lines], [*header.split(), *words])
        )
        return cls((header, *shown), natural, body, least)


def _groups(columns: Sequence[_Column], width: int) -> list[list[int]]:
    """Numbers of columns for each block, the first one in all; as few and as even as can be."""
    groups = _fill(columns, width)
    limit = width
    while limit > 1 and len(_fill(columns, limit - 1)) == len(groups) > 1:
        limit -= 1
        groups = _fill(columns, limit)
    return groups


def _fill(columns: Sequence[_Column], width: int) -> list[list[int]]:
    first = columns[0].least + _PADDING
    groups: list[list[int]] = [[0]]
    used = first
    for number, column in enumerate(columns[1:], start=1):
        needed = column.least + _PADDING
        if used + needed > width and len(groups[-1]) > 1:
            groups.append([0])
            used = first
        groups[-1].append(number)
        used += needed
    return groups


def _block(
    columns: Sequence[tuple[_Column, str]], width: int, styles: Mapping[str, str]
) -> RichTable:
    widths = _widths([column for column, _ in columns], width)
    view = RichTable(box=None, pad_edge=False)
    for (column, side), size in zip(columns, widths, strict=True):
        view.add_column(
            Text(column.cells[0]),
            justify="left" if side == "left" else "right",
            width=size,
            overflow="fold",
        )
    for row in list(zip(*(column.cells for column, _ in columns), strict=True))[1:]:
        view.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    return view


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """The widest columns give way first: their headers, then their cells, their words at last."""
    widths = [max(column.natural, 1) for column in columns]
    room = width - _PADDING * len(columns)
    for least in zip(*((column.body, column.least, 1) for column in columns), strict=True):
        while sum(widths) > room:
            wider = [n for n, size in enumerate(widths) if size > max(least[n], 1)]
            if not wider:
                break
            widths[max(wider, key=widths.__getitem__)] -= 1
    return widths
