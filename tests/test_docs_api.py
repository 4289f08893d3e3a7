"""Every public name and command is on a page of the API reference; links of a site are followed."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

import rvelens
from rvelens.cli import program
from rvelens.studies import NAMES

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
import beds  # noqa: E402
import fill  # noqa: E402
import links  # noqa: E402
import public  # noqa: E402
import study_pages  # noqa: E402

# What no script imports: the explorer, the command line, single studies and families, and what studies
# are made of. lmms-eval's half of rvelens.lmms cannot be imported without lmms-eval.
INNER = re.compile(
    r"rvelens\.(__main__|app\b.*|cli\b.*|hooks\.hooks\b.*|lmms\.(model|task)"
    r"|families\.(?!base$|registry$).*"
    r"|studies\.(?!kit\b).*|studies\.kit(\.(?!base$|parts$|run$|write$|paper$).*)?)"
)
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(rvelens.__path__, "rvelens.")
    if not INNER.fullmatch(name)
]


@pytest.fixture(scope="module")
def documented():
    """Full names on the pages in docs/api, as `%% api` fills them in."""
    text = "\n".join(fill.api(name) for name in public.documented_modules())
    names = re.findall(r"^\.\. auto(?:class|function|exception):: (\S+)$", text, re.MULTILINE)
    data = re.findall(r"^\.\. py:data:: (\S+)\n   :module: (\S+)$", text, re.MULTILINE)
    return {*names, *(f"{module}.{name}" for name, module in data)}


@pytest.mark.parametrize("name", ["rvelens", *MODULES])
def test_every_public_name_is_documented(documented, name):
    module = importlib.import_module(name)
    for one in public.public_names(module):
        home = public.home(one, getattr(module, one), module)
        assert f"{home}.{one}" in documented, f"add `%% api {home}` to a page in docs/api"


def test_every_public_function_and_class_has_a_docstring(documented):
    for full in documented:
        module, _, name = full.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if getattr(value, "__module__", "").startswith("rvelens"):
            assert (value.__doc__ or "").strip(), full


def test_a_module_is_on_one_page_alone():
    named = public.documented_modules()
    assert len(named) == len(set(named))


def test_every_command_and_option_is_on_the_page():
    page = fill.cli()
    root = typer.main.get_command(program)
    commands = dict(_commands(root, "rvelens"))
    assert {"rvelens eval", "rvelens pairs make", "rvelens data check"} <= set(commands)
    for path, command in commands.items():
        section = page.split(f"## {path}\n", 1)[1].split("\n## ")[0]
        for parameter in command.params:
            assert max(parameter.opts, key=len) in section or parameter.name.upper() in section


def _commands(command, path):
    for name in command.list_commands(None):
        sub = command.get_command(None, name)
        if hasattr(sub, "commands"):
            yield from _commands(sub, f"{path} {name}")
        else:
            yield f"{path} {name}", sub


SHOWN = sorted(
    {
        line
        for page in [*(DOCS / "howto").glob("*.md"), *(DOCS / "explanation").glob("*.md")]
        for block in re.findall(
            r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        )
        for line in re.findall(r"(?:^| -m )(rvelens .*)$", block, re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", SHOWN)
def test_commands_of_the_guides_are_those_of_the_command_line(line):
    _, *words = shlex.split(line)
    command = typer.main.get_command(program)
    while hasattr(command, "commands"):
        command = command.get_command(None, words.pop(0))
    command.make_context("rvelens", words)  # raises for an option that is not there


def test_every_study_is_listed_and_says_something():
    listed = fill.studies()
    for name in NAMES:
        assert f"(../studies/{name}/{name}.md)" in listed
    assert fill.says(DOCS, "sweep").startswith("- of 73 settings")


@pytest.mark.parametrize("file", sorted(DOCS.glob("studies/*/*.json")), ids=lambda f: f.parent.name)
def test_the_page_of_a_run_says_the_command_that_made_it(file):
    said = study_pages._command_of(file.parent, file.stem)
    made_by = [*(DOCS.parent / "Makefile").read_text("utf-8").split(), *NAMES]
    words = shlex.split(said)
    assert words[:3] == ["rvelens", "study", file.stem]
    assert words[-1] == f"docs/studies/{file.parent.name}"
    assert ("--model" in words) == ("-parts-" in words[-1])
    assert ("--benchmark" in words) == (file.parent.name != file.stem)
    assert file.parent.name in made_by or "-parts-" in words[-1] or words[-1] in made_by


@pytest.mark.parametrize(
    "table", [beds.gains, beds.controls, beds.finding, beds.correlation, beds.masking]
)
def test_tables_over_runs_have_a_row_for_each(table):
    head, marks, *rows = table(DOCS).splitlines()
    linked = [re.match(r"\| \[[^]]+\]\(\.\./studies/([^/]+)/head-scores\.md\) \|", r) for r in rows]
    folders = {found[1] for found in linked if found}
    assert folders == {file.parent.name for file in DOCS.glob("studies/*/head-scores.json")}
    assert len(rows) == len(folders)
    assert {row.count(" | ") for row in (head, marks, *rows)} == {head.count(" | ")}


def test_bold_is_what_lies_beyond_chance():
    estimate = {"value": 0.05, "low": 0.04, "high": 0.06}
    assert beds._cell(estimate) == "**+0.050 [+0.040,\u00a0+0.060]**"
    assert beds._cell(estimate, -0.04, 0.04) == "+0.050 [+0.040,\u00a0+0.060]"
    assert beds._cell(estimate, 0.07, 0.08).startswith("**")


def test_an_index_takes_title_and_first_sentence(tmp_path):
    (tmp_path / "index.md").write_text("# Index\n")
    (tmp_path / "b.md").write_text("---\nkernelspec:\n  name: x\n---\n\n# Second\n\nOne. Two.\n")
    (tmp_path / "a.md").write_text("# First\n\n```python\nno.\n```\n\nWhat it\nis: this.\n")
    listed = fill.pages(tmp_path, ["b.md", "*"])
    assert listed.startswith("[Second](b.md)\n: One.\n\n[First](a.md)\n: What it is.\n\n")
    assert listed.endswith("b.md\na.md\n```")


@pytest.mark.parametrize(
    ("href", "why"),
    [
        ("b.html", None),
        ("sub/c.html#there", None),
        ("#here", None),
        ("https://example.org/#no", None),
        ("no.html", "no such file"),
        ("b.html#no", "no anchor 'no'"),
        ("#no", "no anchor 'no'"),
        ("../outside.html", "expected a file of the site"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, href, why):
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (tmp_path / "outside.html").write_text("")
    (site / "b.html").write_text("<p>b</p>")
    (site / "sub" / "c.html").write_text('<h1 id="there">c</h1><a href="../b.html">b</a>')
    (site / "a.html").write_text(f'<a name="here"></a>\n<a href="{href}">link</a>')
    found = links.broken(site)
    assert len(found) == (why is not None)
    if why:
        assert found[0].startswith(f"a.html:2: {href!r}: {why}")


def test_a_folder_without_pages_is_no_site(tmp_path):
    with pytest.raises(
        ValueError, match=r"no page below .*: expected a built site; run `make docs`"
    ):
        links.broken(tmp_path)
