"""The public names of a module, and where each is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

API = Path(__file__).parents[1] / "api"
FILLED = re.compile(r"^%% api (\S+)$", re.MULTILINE)


def documented_modules() -> list[str]:
    """Modules that the pages in docs/api name, in order of the pages."""
    pages = sorted(API.glob("*.md"))
    return [name for page in pages for name in FILLED.findall(page.read_text("utf-8"))]


def public_names(module: ModuleType) -> list[str]:
    """`__all__` where there is one, else what the source defines without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def home(name: str, value: Any, module: ModuleType) -> str:
    """The module that a name of a module is documented in: a package that re-exports it, if any.

    Constants are documented where they are defined: their values do not tell where that is.
    """
    parts = module.__name__.split(".")
    for n in range(1, len(parts)):
        package = importlib.import_module(".".join(parts[:n]))
        listed = getattr(package, "__all__", ())
        if name in listed and getattr(package, name, None) is value:
            return package.__name__
    return module.__name__


def defined_in(module: ModuleType, name: str) -> ModuleType:
    """The module that a constant of a package is written in: where its `import` leads."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and any(
            name == (alias.asname or alias.name) for alias in node.names
        ):
            return defined_in(importlib.import_module(node.module or ""), name)
    return module


def comment_above(module: ModuleType, name: str) -> str:
    """The comment above a constant's definition, or behind it."""
    lines = inspect.getsource(module).splitlines()
    defines = re.compile(rf"(\w+, )*{name}(, \w+)*\s*[:=]")
    start = next((n for n, line in enumerate(lines) if defines.match(line)), 0)
    behind = lines[start].partition("  # ")[2]
    comment: list[str] = []
    while start and lines[start - 1].startswith("# "):
        start -= 1
        comment.insert(0, lines[start][2:])
    return " ".join(comment) or behind


def written(module: ModuleType, name: str) -> str:
    """What the source sets a constant or a name of a type to, in one line."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            value = getattr(node, "value", None)
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for named, said in pairs:
                if isinstance(named, ast.Name) and named.id == name:
                    return "" if said is None else ast.unparse(said)
    return ""
