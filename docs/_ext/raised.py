"""Messages that the package raises, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from keyword import iskeyword
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
MOST_NAMED = 3  # a helper that more public functions use is named by its module alone


@dataclass(frozen=True)
class Raised:
    """One exception of the source.

    Attributes:
        file: below the repository.
        line: of the expression that makes it.
        source: this expression.
        kind: its type.
        templates: its text, once for each way it can read; none where the text is made elsewhere.
        by: public functions and classes of the module through which it is raised; none for too many.
    """

    file: str
    line: int
    source: str
    kind: str
    templates: tuple[str, ...]
    by: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """As it is imported: `hooks` is `rvelens.hooks`."""
        name = self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return name if name.startswith("rvelens") else f"rvelens.{name}"


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
    scopes = dict(_scopes(tree))
    for scope, owner in [*scopes.items(), ("", tree)]:
        inner = [n for n in scopes.values() if n is not owner] if owner is tree else []
        for node in _walk(owner, inner):
            if isinstance(node, ast.Call) and node.args:
                kind = ast.unparse(node.func)
                if kind.endswith("Error") and kind[0].isupper():
                    texts = _texts(node.args[0], functions)
                    said = tuple(dict.fromkeys(" ".join(text.split()) for text in texts or ()))
                    by = tuple(sorted(_public(scope, scopes)))
                    by = by if len(by) <= MOST_NAMED else ()
                    yield Raised(file, node.lineno, ast.unparse(node), kind, said, by)


def _scopes(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions of a module and methods of its classes, by their names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for n, inner in enumerate(node.body):
                name = inner.name if isinstance(inner, ast.FunctionDef) else f"__{n}__"
                yield f"{node.name}.{name}", inner


def _walk(owner: ast.AST, but: list[ast.AST]) -> Iterator[ast.AST]:
    """As `ast.walk`, without some nodes and what is in them."""
    yield owner
    for child in ast.iter_child_nodes(owner):
        if not any(child is one for one in but):
            yield from _walk(child, but)


def _public(scope: str, scopes: dict[str, ast.AST], seen: frozenset[str] = frozenset()) -> set[str]:
    """The public function, method or class of a scope, or those that lead to a private one."""
    top, _, method = scope.partition(".")
    hidden = top if top.startswith("_") else method
    if method.startswith("__") and not top.startswith("_"):
        return {top}  # made or called
    if not hidden.startswith("_"):
        return {scope} - {""}
    users = {
        name
        for name, node in scopes.items()
        if name != scope and name not in seen and any(_names(n) == hidden for n in ast.walk(node))
    }
    return {one for user in users for one in _public(user, scopes, seen | {scope} | users)}


def _names(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str] | None:
    """Every text that an expression can be; None where that is not written in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(map(_part, node.values))]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = _texts(node.left, functions), _texts(node.right, functions)
        return None if None in parts else ["".join(p) for p in product(*parts)]  # type: ignore[arg-type]
    if isinstance(node, ast.IfExp):
        parts = _texts(node.body, functions), _texts(node.orelse, functions)
        return None if None in parts else [*parts[0], *parts[1]]  # type: ignore[misc]
    if isinstance(node, ast.Call):  # a function of this module, or a method, that makes the text
        called = _names(node.func)
        if called not in functions:
            return None
        returns = [n for n in ast.walk(functions[called]) if isinstance(n, ast.Return) and n.value]
        found = [_texts(n.value, functions) for n in returns]  # type: ignore[arg-type]
        return None if None in found or not found else [t for some in found for t in some]  # type: ignore[union-attr]
    return None


def _part(part: ast.expr) -> str:
    """Of a text with values in it: a value is the last name in it that is not called, in braces."""
    if not isinstance(part, ast.FormattedValue):
        return str(part.value)  # type: ignore[attr-defined]
    text = re.sub(r"(?<!self)\.name\b", "", ast.unparse(part.value))
    text = re.sub(r"\b[A-Za-z_]\w*\.(?=\w+\b(?!\())", "", text)  # self.n_heads
    if text.startswith("len("):
        return "{n}"
    if text.endswith(").__name__"):
        return "{type}"
    if not re.fullmatch(r"\w+( [-+/*]+ [\w.]+)*", text):  # a name, or a little arithmetic
        names = re.findall(r"\b[A-Za-z_]\w*\b(?!\()", re.sub(r"'[^']*'", "", text))
        text = next((name for name in reversed(names) if not iskeyword(name)), "…")
    return f"{{{text.strip('_').lower()}}}"
