"""What every tutorial must be; the documentation's build runs them, these tests do not."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import rvelens.plots

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")
# Functions that make a picture; names with capitals are sizes, colours and data.
DRAWING = {
    name
    for name in rvelens.plots.__all__
    if name.islower() and name not in {"check_figure_path", "save_figure"}
}
# TransformerLens would run pip, and there is no public way to stop it; transformers has no public
# name for the attention that a model runs, which a family's page must show to differ.
ALLOWED_PRIVATE = {"_ensure_torchvision", "_attn_implementation"}
FENCE = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = re.compile(r"\A(?:---\n((?:.*\n)*?)---\n|((?::.*\n)+))")
ABSOLUTE = re.compile(r"""(?<![\w.:/<`])/(?:[\w.-]+/)+|[A-Z]:\\|~/""")


@dataclass(frozen=True)
class Cell:
    """Code of a cell, and its options."""

    code: str
    options: dict[str, Any]

    @property
    def hidden(self) -> bool:
        return "remove-cell" in str(self.options.get("tags", ""))


def cells(page: str) -> list[Cell]:
    found = []
    for body in FENCE.findall(page):
        head = OPTIONS.match(body)
        lines = "" if head is None else head[1] or head[2].replace("\n:", "\n").removeprefix(":")
        found.append(Cell(body[head.end() if head else 0 :], yaml.safe_load(lines) or {}))
    return found


def front_matter(page: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)^---\n", page, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(match[1]) if match else {}


def draws(code: str) -> bool:
    """Whether a figure, made by `rvelens.plots` or a function of the cells, ends the cell."""
    last = ast.parse(code).body[-1]
    return isinstance(last, ast.Expr) and not (
        isinstance(last.value, ast.Call) and ast.unparse(last.value.func) == "print"
    )


def private_names(code: str) -> set[str]:
    """Imported modules and names, and attributes, that begin with one underscore."""
    names: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names += (getattr(node, "module", None) or "").split(".")
            names += [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
    return {name for name in names if re.match(r"_(?!_)|__(?!.*__$)", name)}


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request):
    return request.param.read_text(encoding="utf-8")


def test_there_are_tutorials_in_order():
    numbers = [path.name[:2] for path in PAGES]
    assert len(numbers) >= 5
    assert numbers == [f"{n:02}" for n in range(1, len(numbers) + 1)]


def test_it_is_a_notebook(page):
    head = front_matter(page)
    assert head["file_format"] == "mystnb"
    assert head["kernelspec"] == {"name": "python3"}


def test_it_has_one_title(page):
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# \S", outside, re.MULTILINE)) == 1


def test_its_cells_compile_and_their_options_are_read(page):
    found = cells(page)
    assert len(found) == page.count("```{code-cell}") > 0
    for cell in found:
        compile(cell.code, "cell", "exec")
        assert set(cell.options) <= {"tags", "mystnb"}


def test_a_cell_makes_a_picture_and_says_what_it_shows(page):
    code = "\n".join(cell.code for cell in cells(page))
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert used & DRAWING
    pictures = [cell for cell in cells(page) if "image" in cell.options.get("mystnb", {})]
    assert pictures
    for cell in pictures:
        assert draws(cell.code)
        assert cell.options["mystnb"]["image"]["alt"]


def test_hidden_cells_only_check(page):
    """What a reader copies from the page must run: nothing visible may need a hidden name."""
    hidden = "\n".join(cell.code for cell in cells(page) if cell.hidden)
    for node in ast.parse(hidden).body:
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef)
    stored = names_of(hidden, ast.Store) | {a.split(".")[0] for a in imported(hidden)}
    seen = "\n".join(cell.code for cell in cells(page) if not cell.hidden)
    made = names_of(seen, ast.Store) | imported(seen)
    assert not names_of(seen, ast.Load) & (stored - made)


def names_of(code: str, context: type) -> set[str]:
    tree = ast.walk(ast.parse(code))
    return {n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def imported(code: str) -> set[str]:
    tree = ast.walk(ast.parse(code))
    return {a.asname or a.name for n in tree if isinstance(n, ast.Import | ast.ImportFrom)
            for a in n.names}  # fmt: skip


def test_there_is_no_absolute_path(page):
    assert not ABSOLUTE.findall(page)


def test_it_uses_public_names_alone(page):
    for cell in cells(page):
        assert private_names(cell.code) <= ALLOWED_PRIVATE


def test_code_fits_the_width_of_the_page(page):
    for cell in cells(page):
        long = [line for line in cell.code.splitlines() if len(line) > 88]
        assert cell.hidden or not long


@pytest.mark.parametrize(
    "code",
    [
        "from rvelens._x import y",
        "import rvelens._x",
        "from rvelens import _x",
        "model._run",
        "a.__b",
    ],
)
def test_a_private_name_is_found(code):
    """What the tests above rest on."""
    assert private_names(code)
    assert not private_names("from __future__ import annotations; x.__class__; _ = 1")


@pytest.mark.parametrize("text", ["in /tmp/x/y", '"/home/me/"', "~/data", r"C:\x"])
def test_an_absolute_path_is_found(text):
    assert ABSOLUTE.search(text)
    assert not ABSOLUTE.search(
        "gained / lost, rvelens/tiny, https://a.b/c/d, `run/` and 1 / (2 / 3)"
    )
