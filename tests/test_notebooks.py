"""Notebooks of tutorials: the page's text and visible code, behind a cell that installs rvelens."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import notebooks  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402
from test_tutorials import PAGES, cells  # noqa: E402


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_it_has_the_page_and_the_install_line(page):
    text = page.read_text("utf-8")
    made = notebooks.notebook_of(text, page.stem)
    nbformat.validate(made)
    first, *others = made.cells
    assert first.source == '%pip install --quiet "rvelens[frames]"'
    code = [cell.source.strip() for cell in others if cell.cell_type == "code"]
    assert code == [cell.code.strip() for cell in cells(text) if not cell.hidden]
    for one in code:
        ast.parse(one)
    assert not any(cell.get("outputs") for cell in made.cells)
    prose = "\n".join(cell.source for cell in others if cell.cell_type == "markdown")
    assert prose.startswith("# ")
    assert ".md)" not in prose
    assert "{py:" not in prose
    assert "{doc}" not in prose
    assert made == notebooks.notebook_of(text, page.stem)


def test_a_page_links_to_its_notebook_below_its_title():
    source = ["---\nfile_format: mystnb\n---\n\n# Title\n\nText.\n"]
    notebooks.link(SimpleNamespace(), "tutorials/01_x", source)
    assert source[0].index("# Title") < source[0].index('href="../notebooks/01_x.ipynb"')
    assert source[0].index("01_x.ipynb") < source[0].index("Text.")
    other = ["# Index\n"]
    notebooks.link(SimpleNamespace(), "tutorials/index", other)
    assert other == ["# Index\n"]


def test_a_tutorial_without_a_notebook_ends_the_build():
    with pytest.raises(ExtensionError, match="tutorials/x has no code cells: expected a tutorial"):
        notebooks.notebook_of("---\nfile_format: mystnb\n---\n\n# Title\n\nText.\n", "tutorials/x")
    with pytest.raises(ExtensionError, match="tutorials/x begins otherwise than a tutorial"):
        notebooks.link(SimpleNamespace(), "tutorials/x", ["Text.\n"])


def test_markdown_alone():
    text = "See {py:func}`~rvelens.a.b`, {doc}`the page <x>` and [it](../x.md#y), [web](https://e.org)."
    assert notebooks.in_markdown("`a {image}` and `b`") == "`a {image}` and `b`"
    assert notebooks.in_markdown(text) == (
        "See `rvelens.a.b`, `the page` and it, [web](https://e.org)."
    )
