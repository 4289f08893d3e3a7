"""Parts of pages that are taken from the package and the folder at every build.

A line of a page that is one of these is replaced by what it names:

    %% api rvelens.hooks     everything public in a module
    %% errors                every message that the package raises, from `error_page.py`
    %% points                every hook point, from the table that registers them
    %% cli                   every command of `rvelens`, with its arguments and options
    %% pages                 the pages of this page's folder, one line each
    %% pages a.md b/c.md     these pages, one line each; `*` stands for the rest of the folder
    %% studies               the studies whose results are in docs/studies, one line each
    %% says sweep            the sentences that a study wrote, from its file in docs/studies
    %% head-scores gains     a table over all stored runs of that study; `beds.py` has the others
    %% paper                 what the paper reports for LLaVA-1.5-7B in its Table 1
    %% smollm                what `make smollm` wrote into smollm.json
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import beds
import error_page
import study_pages
import typer
from public import comment_above, defined_in, home, public_names, written
from sphinx.application import Sphinx

import rvelens
from rvelens.seam.points import ROWS

LINE = re.compile(
    r"^%% (api|errors|points|cli|pages|studies|says|head-scores|paper|smollm)\b *(.*)$",
    re.MULTILINE,
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", import_package)
    app.connect("source-read", fill)
    app.connect("source-read", study_pages.show)
    return {"parallel_read_safe": True}


def import_package(app: Sphinx) -> None:
    """Import every module first.

    Autodoc rewrites annotations of classes that it shows, pydantic's base among them. A module that is
    imported afterwards could then declare no form of a file.
    """
    for module in pkgutil.walk_packages(rvelens.__path__, "rvelens."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the lines."""
    here = Path(app.srcdir, docname).parent
    makers = {
        "api": api,
        "errors": lambda _: error_page.messages(),
        "points": lambda _: points(),
        "cli": lambda _: cli(),
        "pages": lambda rest: pages(here, rest.split()),
        "studies": lambda _: studies(),
        "says": lambda name: says(Path(app.srcdir), name),
        "head-scores": lambda name: getattr(beds, name)(Path(app.srcdir)),
        "paper": lambda _: paper(),
        "smollm": lambda _: smollm(Path(app.srcdir)),
    }
    source[0] = LINE.sub(lambda found: makers[found[1]](found[2]), source[0])


def points() -> str:
    """A table of the hook points."""
    rows = ["| hook point | tensor | what | read at |", "|---|---|---|---|"]
    for row in ROWS:
        name = row.full_name.replace("LAYER", "{layer}")
        rows.append(f"| `{name}` | `[{row.axes}]` | {row.meaning} | {row.read} |")
    return "\n".join(rows) + "\n"


def api(name: str) -> str:
    """A heading, the module's docstring and its public names."""
    module = importlib.import_module(name)
    about = inspect.cleandoc(module.__doc__ or "")
    about = re.sub(r"(?s)\n\n- `\w+\.py`.*", "", about)  # a list of files is for who reads these
    package, _, last = name.rpartition(".")
    # A function of the same name may stand in the module's place in its package.
    shadowed = bool(package) and getattr(importlib.import_module(package), last) is not module
    blocks = [f".. py:{'currentmodule' if shadowed else 'module'}:: {name}"]
    for public in public_names(module):
        value = getattr(module, public)
        if home(public, value, module) == name:
            blocks.append(_described(module, public, value))
    rst = "\n\n".join(blocks)
    return f"## {name}\n\n{about}\n\n```{{eval-rst}}\n{rst}\n```\n"


def _described(module: Any, name: str, value: Any) -> str:
    full = f"{module.__name__}.{name}"
    if inspect.isclass(value) and value.__module__.startswith("rvelens"):
        kind = "exception" if issubclass(value, BaseException) else "class"
        return f".. auto{kind}:: {full}\n   :members:\n   :exclude-members: set"
    if inspect.isfunction(inspect.unwrap(value) if callable(value) else value):  # cached ones too
        return f".. autofunction:: {full}"
    source = defined_in(module, name)
    text, shown = comment_above(source, name), written(source, name)
    options = f"\n   :value: {shown}" if len(shown) < 80 else ""
    return f".. py:data:: {name}\n   :module: {module.__name__}{options}\n\n   {text}"


def cli() -> str:
    """A section for each command, written from what `--help` shows."""
    from rvelens.cli import program

    root = typer.main.get_command(program)
    commands = _commands(root, root.context_class(root, info_name="rvelens"))
    return "\n\n".join(chain.from_iterable(_command(*one) for one in commands))


def _commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    for name in command.list_commands(context):  # some are imported when they are asked for
        sub = command.get_command(context, name)
        below = sub.context_class(sub, parent=context, info_name=name)
        if hasattr(sub, "commands"):
            yield from _commands(sub, below)
        else:
            yield sub, below


def _command(command: Any, context: Any) -> Iterator[str]:
    yield f"## {context.command_path}"
    usage = " ".join(command.get_usage(context).split())
    yield f"```text\n{usage.removeprefix('Usage: ')}\n```"
    yield inspect.cleandoc(command.help or "")
    records = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [f"| {_code(r[0])} | {_cell(r[1])} |" for r in records if r and "--help" not in r[0]]
    if rows:
        yield "\n".join(["| | |", "|---|---|", *rows])


def _code(text: str) -> str:
    return f"`{text.strip()}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """A help text as Markdown; braces, angle and square brackets are meant as they stand."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [re.sub(r"([\[\]<>*_{}$])", r"\\\1", p) if n % 2 == 0 else p
             for n, p in enumerate(pieces)]  # fmt: skip
    return "".join(plain).replace("|", "\\|")


def pages(here: Path, names: list[str]) -> str:
    """Each page's title with the first sentence of its text, and the same pages as a toctree."""
    files = [here / name for name in names if name != "*"]
    if not names or "*" in names:
        files += [file for file in sorted(here.glob("*.md")) if file not in files]
    entries, targets = [], []
    for file in (file for file in files if file.name != "index.md"):
        title, first = _opening(file.read_text("utf-8"))
        targets.append(file.as_posix().removeprefix(here.as_posix() + "/"))
        entries.append(f"[{title}]({targets[-1]})\n: {first}")
    listed = "\n".join(["```{toctree}", ":hidden:", "", *targets, "```"])
    return "\n\n".join([*entries, listed])


def studies() -> str:
    """A definition list of the studies with their places in the paper, and their pages as a toctree."""
    from rvelens.studies import NAMES, find_study

    entries = []
    for name in NAMES:
        study = find_study(name)
        where = f" ({study.paper})" if study.paper else ""
        about = f"{study.about[:1].upper()}{study.about[1:]}{where}."
        entries.append(f"[{name}](../studies/{name}/{name}.md)\n: {about}{_other_runs(name)}")
    here = Path(__file__).parents[1] / "studies"
    files = [file for name in NAMES for file in sorted(here.glob(f"*/{name}.md"))]
    targets = [f"../studies/{file.relative_to(here).as_posix()}" for file in files]
    listed = "\n".join(["```{toctree}", ":hidden:", "", *targets, "```"])
    return "\n\n".join([*entries, listed])


def _other_runs(name: str) -> str:
    """Links to a study's runs on other models and questions."""
    here = Path(__file__).parents[1] / "studies"
    others = sorted(p.parent.name for p in here.glob(f"*/{name}.md") if p.parent.name != name)
    links = [f"[{other}](../studies/{other}/{name}.md)" for other in others]
    return f" Elsewhere: {', '.join(links)}." if links else ""


def says(docs: Path, name: str) -> str:
    """What a study says, as a list, with a link to its page."""
    written = json.loads((docs / "studies" / name / f"{name}.json").read_text("utf-8"))
    link = f"[`rvelens study {name}`](../studies/{name}/{name}.md)"
    return "\n".join([*(f"- {line}" for line in written["says"]), f"- All of it: {link}."])


def paper() -> str:
    """Accuracy without and with RVE, as the paper prints it."""
    from rvelens.studies.kit.paper import lookup

    cells = {
        (cell.benchmark, cell.method): cell.value
        for cell in lookup("table1", model="llava-1.5-7b", metric="accuracy")
    }
    rows = ["| benchmark | vanilla, the paper's | RVE, the paper's |", "|---|--:|--:|"]
    for benchmark in dict.fromkeys(name for name, _ in cells):
        values = (f"{100 * cells[benchmark, method]:.2f}" for method in ("vanilla", "rve"))
        rows.append(f"| {benchmark} | {' | '.join(values)} |")
    return "\n".join(rows)


def smollm(docs: Path) -> str:
    """What `rvelens check` measured on real language-model weights, a column for each dtype."""
    found = json.loads((docs / "smollm.json").read_text("utf-8"))
    lines = {dtype: {x["name"]: x for x in report["lines"]} for dtype, report in found.items()}
    rows = [["", *found]]
    rows.append(["checks failed", *(_failed(report["lines"]) for report in found.values())])
    for name in ("range", "pattern", "z", "RVE", "left padding", "cache"):
        cells = [_measured(lines[dtype][name]) for dtype in found]
        rows.append([f"{name}: measured, limit", *cells])
    for name in ("first token", "first token, most", "image", "largest score", "rounded masks"):
        cells = [f"{report['attention'][name]:.3f}" for report in found.values()]
        rows.append([f"attention: {name}", *cells])
    for name in ("mean", "least"):
        cells = [f"{report['masks'][name]:.3f}" for report in found.values()]
        rows.append([f"masks shared with float32, {name} of layers", *cells])
    marks = ["---", *("--:" for _ in found)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], marks, *rows[1:]))


def _failed(lines: list[dict[str, Any]]) -> str:
    names = [line["name"] for line in lines if line["status"] == "failed"]
    return ", ".join(names) or f"none of {len(lines)}"


def _measured(line: dict[str, Any]) -> str:
    if line["measured"] is None:
        return str(line["status"])
    return f"{line['measured']:.1e}, {line['limit']:.1e}"


def _opening(text: str) -> tuple[str, str]:
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    title, _, rest = text.strip().partition("\n")
    rest = re.sub(r"^(`{3,}|:{3,}).*?^\1$", "", rest, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (p for p in re.split(r"\n\s*\n", rest) if re.match(r"\s*[\w`*\"'\[]", p))
    paragraph = " ".join(next(paragraphs, "").split())
    first = re.match(r".*?[.:](?=\s|$)", paragraph)
    sentence = first[0] if first else paragraph
    return title.lstrip("# ").strip(), re.sub(r":$", ".", sentence)
