"""How docstrings and signatures of the package read on the API pages."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    # Before napoleon, which turns Google's sections into fields.
    app.connect("autodoc-process-docstring", plain_text, priority=100)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("missing-reference", find_reexported)
    app.connect("doctree-read", part_names)
    return {"parallel_read_safe": True}


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: what is indented below a colon is an equation or an example.

    Bars, underscores and asterisks outside these stand for themselves.
    """
    out: list[str] = []
    literal_from: int | None = None
    for n, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_from is not None and line.strip() and indent < literal_from:
            literal_from = None
        if literal_from is None and line.strip() and n >= 2 and not lines[n - 1].strip():
            above = next((a for a in reversed(lines[: n - 1]) if a.strip()), "")
            if indent >= len(above) - len(above.lstrip()) + 4:
                literal_from = indent
                pad = " " * (len(above) - len(above.lstrip()))
                out += [f"{pad}::", ""]
        # Of "low, high: ...", Sphinx would take the first name for the type of the second.
        names = re.match(r"\s+\w+(, \w+)+: ", line)
        if names and literal_from is None:
            line = names[0].replace(", ", ",") + line[names.end() :]
        out.append(line if literal_from is not None else _escaped(line))
    lines[:] = out


def part_names(app: Sphinx, doctree: nodes.document) -> None:
    """Put back the space that `plain_text` took from "low, high: ..."."""
    for field in doctree.findall(nodes.field_body):
        for name in field.findall(nodes.strong):
            if "," in name.astext():
                name.children = [nodes.Text(name.astext().replace(",", ", "))]


def _escaped(line: str) -> str:
    if not re.search(r"[|*]|\w_(?=\W|$)", line):
        return line
    pieces = re.split(r"(`[^`]*`)", line)
    return "".join(
        piece if n % 2 else re.sub(r"([|]|(?<!\*)\*(?=\w)|(?<=\w)_(?=\W|$))", r"\\\1", piece)
        for n, piece in enumerate(pieces)
    )


def readable_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Types as the source spells them: `Float[Tensor, "batch key"]`."""
    return _readable(signature), _readable(returns)


def _readable(text: str | None) -> Any:
    if not text:
        return text
    text = re.sub(r"~?\bjaxtyping\.", "", text).replace("<factory>", "...")
    return text


def find_reexported(
    app: Sphinx, env: Any, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """`rvelens.heads.profile.ARSProfile` is documented as `rvelens.ARSProfile`; a bare name too."""
    if node.get("refdomain") != "py":
        return None
    target = str(node.get("reftarget"))
    if "." in target and not target.startswith("rvelens.") and node.get("reftype") != "obj":
        return None
    domain = env.get_domain("py")
    by_tail = _by_tail(tuple(domain.objects))
    for tail in (target, ".".join(target.split(".")[-2:]), target.rpartition(".")[2]):
        ends = by_tail.get(tail, [])
        # A method's last part says too little.
        if len(ends) == 1 and (tail == target or domain.objects[ends[0]].objtype != "method"):
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", ends[0], node, contnode
            )
    return None


@cache
def _by_tail(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Full names by each of their ends."""
    by_tail: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        for n in range(len(parts)):
            by_tail.setdefault(".".join(parts[n:]), []).append(name)
    return by_tail
