"""Messages that the package raises, read from its source, and those that docs/errors explains."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "errors"
PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Raised:
    """One exception: the templates of its text, or none where that is made elsewhere."""

    file: str
    line: int
    source: str
    kind: str
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One section of a page: a heading, messages, and code that raises one of them."""

    page: str
    heading: str
    text: str

    @property
    def messages(self) -> list[str]:
        return [plain(block) for block in self._blocks("text")]

    @property
    def examples(self) -> list[tuple[str, str]]:
        return [(name, block) for name in ("python", "console") for block in self._blocks(name)]

    def _blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)


def plain(message: str) -> str:
    """One line, with every placeholder empty, so that its name does not matter."""
    return PLACEHOLDER.sub("{}", " ".join(message.split()))


def all_raised() -> list[Raised]:
    """Of every module of the package; `rvelens/hooks` is a link to `hooks`."""
    files = [p for folder in ("hooks", "rvelens") for p in sorted((ROOT / folder).rglob("*.py"))]
    return [
        one
        for path in files
        if not path.relative_to(ROOT).as_posix().startswith("rvelens/hooks/")
        for one in raised_in(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
    ]


def raised_in(source: str, file: str = "") -> Iterator[Raised]:
    """Every exception that is made with something to say, to be raised here or elsewhere."""
    tree = ast.parse(source)
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            kind = ast.unparse(node.func)
            if kind.endswith("Error") and kind[0].isupper():
                texts = _texts(node.args[0], functions)
                said = tuple(dict.fromkeys(plain(text) for text in texts or ()))
                yield Raised(file, node.lineno, ast.unparse(node), kind, said)


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str] | None:
    """Every text that an expression can be; None where that is not written in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [
            "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)  # type: ignore[misc]
        ]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = _texts(node.left, functions), _texts(node.right, functions)
        return None if None in parts else ["".join(p) for p in product(*parts)]  # type: ignore[arg-type]
    if isinstance(node, ast.IfExp):
        parts = _texts(node.body, functions), _texts(node.orelse, functions)
        return None if None in parts else [*parts[0], *parts[1]]  # type: ignore[misc]
    if isinstance(node, ast.Call):  # a function of this module, or a method, that makes the text
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if called not in functions:
            return None
        returns = [n for n in ast.walk(functions[called]) if isinstance(n, ast.Return) and n.value]
        found = [_texts(n.value, functions) for n in returns]  # type: ignore[arg-type]
        return None if None in found or not found else [t for some in found for t in some]  # type: ignore[union-attr]
    return None


def sections() -> list[Section]:
    """Of every page but the index, in the order of the pages."""
    found = []
    for path in sorted(PAGES.glob("*.md")):
        if path.name != "index.md":
            pieces = re.split(r"^## (.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
            found += [
                Section(path.name, *pair) for pair in zip(pieces[1::2], pieces[2::2], strict=True)
            ]
    return found
