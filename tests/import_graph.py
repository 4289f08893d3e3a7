"""The import graph of the package, read from its source; `python tests/import_graph.py` prints it.

A room is a folder or a module right below `rvelens`; `hooks` is the folder at the top of the tree.
An arrow leads from a room to a room that it imports, also inside functions and for types. The package's
own `__init__` and `__main__` are the doors of the house and no rooms.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sources(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module by its dotted name, parsed."""
    paths = {p: p.relative_to(root) for p in (root / "rvelens").rglob("*.py")}
    paths = {p: inner for p, inner in paths.items() if inner.parts[1] != "hooks"}
    paths |= {p: Path("rvelens") / p.relative_to(root) for p in (root / "hooks").rglob("*.py")}
    return {
        ".".join(inner.with_suffix("").parts).removesuffix(".__init__"): ast.parse(p.read_text())
        for p, inner in paths.items()
    }


def imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the package has no relative imports"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (full & modules) | ({str(node.module)} if full - modules else set())
    return names & modules


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Each module, and the modules that it imports."""
    trees = sources(root)
    return {name: imported(tree, set(trees)) - {name} for name, tree in trees.items()}


def room_of(module: str) -> str:
    """The room of a module; "" for the doors."""
    room = [*module.split("."), ""][1]
    return "" if room == "__main__" else room


def arrows_of(graph: dict[str, set[str]]) -> dict[tuple[str, str], list[str]]:
    """Each arrow, from room to room, with the imports that it stands for."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for module, targets in sorted(graph.items()):
        for target in sorted(targets):
            ends = room_of(module), room_of(target)
            if all(ends) and ends[0] != ends[1]:
                arrows.setdefault(ends, []).append(f"{module} imports {target}")
    return arrows


def lines(graph: dict[str, set[str]]) -> Iterator[str]:
    """The numbers of rooms and arrows, and what each room imports."""
    rooms, arrows = {room_of(module) for module in graph} - {""}, arrows_of(graph)
    yield f"{len(rooms)} rooms, {len(arrows)} arrows"
    for room in sorted(rooms):
        yield f"{room}: {' '.join(sorted(to for at, to in arrows if at == room))}"


if __name__ == "__main__":
    root = Path(sys.argv[1]) if sys.argv[1:] else ROOT
    sys.stdout.writelines(f"{line}\n" for line in lines(import_graph(root)))
