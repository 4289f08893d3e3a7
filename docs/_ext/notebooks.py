"""Tutorials as notebooks to download: made from their pages at every build, without outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FOLDER = "notebooks"  # of the built site
INSTALL = '%pip install --quiet "rvelens[frames]"'
LINK = '<p><a href="../{folder}/{name}.ipynb" download>Download this page as a notebook</a></p>'
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
# What Markdown alone does not know: roles, and links to other pages of the site.
ROLE = re.compile(r"\{(?:py:[a-z]+|doc|ref|download)\}`~?([^`<]+?)(?:\s*<[^`>]*>)?`")
PAGE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", link)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}


def is_tutorial(docname: str) -> bool:
    """Whether a page has a notebook."""
    return docname.startswith("tutorials/") and not docname.endswith("/index")


def link(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a link to the notebook below the title of a tutorial."""
    if not is_tutorial(docname):
        return
    name = docname.rpartition("/")[2]
    below = rf"\1\n\n{LINK.format(folder=FOLDER, name=name)}\n"
    source[0], n = re.subn(r"\A(---\n.*?\n---\n\s*# [^\n]*)\n", below, source[0], flags=re.DOTALL)
    if not n:
        raise ExtensionError(
            f"{docname} begins otherwise than a tutorial: expected front matter and a title; correct "
            "the page."
        )


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the notebook of every tutorial into the site."""
    if error is not None or app.builder.name != "html":
        return
    folder = Path(app.outdir, FOLDER)
    folder.mkdir(exist_ok=True)
    for docname in filter(is_tutorial, sorted(app.env.found_docs)):
        page = Path(app.env.doc2path(docname))
        text = nbformat.writes(notebook_of(page.read_text("utf-8"), docname))
        (folder / f"{page.stem}.ipynb").write_text(text, "utf-8")


def notebook_of(page: str, docname: str) -> nbformat.NotebookNode:
    """The notebook of a page: its text and visible cells, behind a cell that installs rvelens.

    Raises:
        ExtensionError: a page without code cells.
    """
    cells = [nbformat.v4.new_code_cell(INSTALL)]
    for cell in read_myst_markdown_notebook(page).cells:
        if cell.cell_type == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(in_markdown(cell.source)))
        elif "remove-cell" not in str(cell.metadata.get("tags", "")):
            cells.append(nbformat.v4.new_code_cell(cell.source))
    if not any(cell.cell_type == "code" for cell in cells[1:]):
        raise ExtensionError(
            f"{docname} has no code cells: expected a tutorial that runs; add one, or move the page."
        )
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"  # at random otherwise, and builds would differ
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.validate(notebook)
    return notebook


def in_markdown(text: str) -> str:
    """Text of a page without what Markdown alone does not know."""
    return PAGE_LINK.sub(r"\1", ROLE.sub(r"`\1`", text))
