"""The rooms of the package stand in one order: each imports only rooms below it."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import import_graph
import pytest

GRAPH = import_graph.import_graph()
ARROWS = import_graph.arrows_of(GRAPH)

# From the ground up. A room imports rooms that stand before it, and no others.
ORDER = (
    "files", "stats", "tables",
    "tokens", "families", "heads", "hooks", "seam", "model",
    "benchmarks", "scores", "views", "patching", "interventions", "plots", "judge", "pairs", "convert",
    "evaluate", "speed", "studies",
    "check", "lmms", "app", "cli",
)  # fmt: skip


def test_every_room_is_in_the_order():
    assert {import_graph.room_of(module) for module in GRAPH} - {""} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_below_it(room):
    above = set(ORDER[ORDER.index(room) :])
    upward = [imports for (at, to), imports in ARROWS.items() if at == room and to in above]
    assert upward == []


def test_modules_import_in_no_circle():
    """Also inside a room."""
    modules = {name: targets - {"rvelens"} for name, targets in GRAPH.items() if name != "rvelens"}
    tuple(TopologicalSorter(modules).static_order())


def test_of_the_package_itself_modules_take_the_version_alone():
    """`rvelens` imports its public names from every room, so another use would be a circle."""
    for module, targets in GRAPH.items():
        if "rvelens" in targets and module != "rvelens":
            assert names_of_the_package(module) == {"__version__"}, module


def names_of_the_package(module: str) -> set[str]:
    tree = import_graph.sources()[module]
    return {
        node.attr
        for node in import_graph.ast.walk(tree)
        if isinstance(node, import_graph.ast.Attribute)
        and isinstance(node.value, import_graph.ast.Name)
        and node.value.id == "rvelens"
    }


def test_few_modules_are_flat():
    assert len(list((import_graph.ROOT / "rvelens").glob("*.py"))) <= 6
    assert len(ORDER) <= 25


def test_the_graph_sees_every_kind_of_import(tmp_path):
    package = tmp_path / "rvelens"
    for room in ("a", "b"):
        (package / room).mkdir(parents=True)
    (tmp_path / "hooks").mkdir()
    (package / "__init__.py").write_text("from rvelens.a.x import Y\n")
    (package / "c.py").write_text("def f():\n    import rvelens.b\n")
    (package / "a" / "__init__.py").write_text("from rvelens.b import y\n")
    (package / "a" / "x.py").write_text("if TYPE_CHECKING:\n    from rvelens.c import f\n")
    (package / "b" / "__init__.py").write_text("")
    (package / "b" / "y.py").write_text("from rvelens.hooks import rve\n")
    (tmp_path / "hooks" / "__init__.py").write_text("from rvelens import a\n")
    (tmp_path / "hooks" / "rve.py").write_text("")
    arrows = import_graph.arrows_of(import_graph.import_graph(Path(tmp_path)))
    assert set(arrows) == {
        ("a", "b"), ("a", "c"), ("b", "hooks"), ("c", "b"), ("hooks", "a")
    }  # fmt: skip
    assert arrows["b", "hooks"] == ["rvelens.b.y imports rvelens.hooks.rve"]
