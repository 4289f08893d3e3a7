"""What the repository asks of contributors is what its Makefile does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load(path):
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def test_the_workflow_runs_make_on_every_python_version():
    job = load(".github/workflows/test.yml")["jobs"]["test"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [c.rpartition(" :: ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert job["strategy"]["matrix"]["python"] == named
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make test PYTHON=python", "make demo PYTHON=python"]
    for target in ("test", "demo"):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_pre_commit_runs_the_tools_of_make():
    (repo,) = load(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in repo["hooks"]]
    commands = MAKEFILE.replace("$(BIN)", ".venv/bin")
    assert [e.split()[0] for e in entries] == [
        ".venv/bin/ruff",
        ".venv/bin/ruff",
        ".venv/bin/pyright",
    ]
    for entry in entries:
        assert f"\t{entry}" in commands


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_the_fields_that_github_wants(path):
    form = load(path)
    assert form["name"]
    assert form["description"]
    fields = form["body"]
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["type"] in ("input", "textarea")
        assert field["attributes"]["label"]


def test_a_form_is_for_families_that_do_not_work():
    names = {load(path)["name"] for path in FORMS}
    assert "My model family does not work" in names


def test_every_folder_of_the_package_is_on_the_map():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = [p for p in (ROOT / "rvelens").iterdir() if p.name[0] not in "._"]
    named = {p.name + "/" if p.is_dir() else p.name for p in rooms if p.name != "py.typed"}
    missing = {name for name in named if f"`{name}`" not in text}
    assert missing == set()
