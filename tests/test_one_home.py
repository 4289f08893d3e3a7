"""Files, statistics and tables each have one home in the package; no module does their work again."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rvelens"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8")
    for path in PACKAGE.rglob("*.py")
    if "hooks" not in path.relative_to(PACKAGE).parts
}
WORK = {
    "files/atomic.py": r"os\.replace|os\.fsync|FileLock|NamedTemporaryFile"
    r"|(?<!files)\.write_(text|bytes)\(|json\.load\(|json\.dump\(",
    "stats.py": r"binomtest|\.multinomial\(|rng\.integers\(len\(|roc_auc",
    "tables.py": r"rich\.table|csv\.(Dict)?[wW]riter|\.to_csv\(.*path|\" \| \"\.join|' \| '\.join",
}


@pytest.mark.parametrize("home", WORK)
def test_work_is_done_in_its_home_alone(home):
    assert re.search(WORK[home], SOURCES[home])
    others = [name for name, text in SOURCES.items() if re.search(WORK[home], text)]
    assert others == [home], f"call rvelens/{home} instead"


@pytest.mark.parametrize("home", WORK)
def test_a_home_knows_nothing_of_what_is_built_on_it(home):
    imported = re.findall(r"^from (rvelens\S*) import", SOURCES[home], re.MULTILINE)
    assert set(imported) <= {"rvelens.stats"}


# `main` is that of `rvelens` and of `python -m rvelens`. Each family and each study is one constant of
# its own module, which the registries read.
REPEATED_NAMES = {"main", "FAMILY", "STUDY"}


def defined_names(tree):
    """Functions, classes, constants and type aliases of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_a_public_name_means_one_thing():
    """No two modules define a public function, class, constant or type alias of one name."""
    definitions = Counter(
        name
        for text in SOURCES.values()
        for name in defined_names(ast.parse(text))
        if not name.startswith("_")
    )
    repeated = {name for name, count in definitions.items() if count > 1}
    assert repeated == REPEATED_NAMES, "give each its own name, or import the first"


# Words that say nothing of a value. `MadePairs.kept` is a key of the command's JSON, and `what` a
# parameter that messages name.
VAGUE = re.compile(
    "one|some|each|found|said|asked|told|kept|beside|settle|look|given|left|ends|below|seen|known"
    "|wanted|what|there|who|held|says|ways?"
)
VAGUE_NAMES = {
    ("pairs/make.py", "kept"),
    ("patching/effects.py", "what"),
    ("patching/last_row.py", "what"),
}


def bound_names(tree):
    """Variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


def test_names_say_what_the_values_are():
    names = {
        (path, name)
        for path, text in SOURCES.items()
        if not path.startswith("interventions/")
        for name in bound_names(ast.parse(text))
        if VAGUE.fullmatch(name.strip("_").lower())
    }
    assert names == VAGUE_NAMES
