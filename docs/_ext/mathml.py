"""Formulas as MathML, which browsers show by themselves: no script from another site."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    latex = node.astext()
    tag = re.search(r"\\tag\{(.*?)\}", latex)
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ""
    formula = tex2mathml(re.sub(r"\s*\\tag\{.*?\}", "", latex), as_block=True)
    translator.body.append(f'<div class="formula">{number}{formula}</div>')
    raise nodes.SkipNode
