"""Pages of docs/studies: what a study wrote, with the figures and files of its folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sphinx.application import Sphinx

# Rows of a table that is shown open.
LONGEST = 30
# A page with pictures, which conf.py copies to the top of the site, within the study's page.
FRAME = """```{{raw}} html
<iframe class="cases" src="../../{file}" title="Questions with pictures" loading="lazy"></iframe>
```

Open it alone: {{download}}`{file} <{file}>`."""


def show(app: Sphinx, docname: str, source: list[str]) -> None:
    """A study's page with the figures and files that its folder holds."""
    if not docname.startswith("studies/"):
        return
    folder, name = Path(app.srcdir, docname).parent, docname.rpartition("/")[2]
    title, _, body = source[0].partition("\n")
    # "sweep: share of RVE (Figures 7 and 8)": the name is the command's, the rest is what it is about.
    _, _, about = title.partition(": ")
    pictures = [
        f"![{_caption(p.stem, name)}]({p.name}){_width(p)}" for p in sorted(folder.glob("*.png"))
    ]
    files = sorted(p for p in folder.iterdir() if p.suffix in (".csv", ".json", ".html"))
    links = ", ".join(f"{{download}}`{p.name} <{p.name}>`" for p in files)
    frames = [FRAME.format(file=p.name) for p in folder.glob("*.html")]
    source[0] = "\n\n".join(
        [f"# {_heading(folder.name, name)}", f"{about[:1].upper()}{about[1:]}.",
         *frames, *pictures, _fold(body),
         f"Files: {links}.", f"Made by `{_command_of(folder, name)}`."]
    )  # fmt: skip


def _heading(folder: str, name: str) -> str:
    """The study's name in words, and what this run of it differs by."""
    words = name.replace("-", " ").capitalize().replace("Ars ", "ARS ")
    model, _, _ = folder.removeprefix(name).partition("turns")
    others = [model.strip("-"), "earlier turns" if folder.endswith("turns") else ""]
    other = ", ".join(filter(None, others))
    return f"{words} ({other})" if other else words


def _fold(body: str) -> str:
    """The body with its long tables closed: each title of a table opens it."""
    return re.sub(r"(?m)^\*\*(.+)\*\*\n\n((?:\|.*\n?)+)", _folded, body)


def _folded(found: re.Match[str]) -> str:
    title, table = found.groups()
    rows = table.strip().count("\n") - 1
    if rows <= LONGEST:
        return found[0]
    return f":::{{dropdown}} {title} ({rows} rows)\n{table.strip()}\n:::\n"


def _command_of(folder: Path, name: str) -> str:
    """The command that wrote a study's folder, from what it was made with."""
    from rvelens.studies import find_study

    (model,) = json.loads((folder / f"{name}.json").read_text("utf-8"))["models"]
    made = model["made_with"]
    words = ["rvelens", "study", name]
    benchmarks = [one["name"] for one in made["benchmarks"]]
    tiny = made["model"]["name"] == "rvelens/tiny"
    if not tiny:
        words += ["--model", made["model"]["name"]]
    if not tiny or benchmarks != list(find_study(name).benchmarks):
        words += ["--benchmark", *benchmarks]
    return " ".join([*words, "--batch-size", "16", "--out", f"docs/studies/{folder.name}"])


def _width(png: Path) -> str:
    """Figures as wide as a column of a paper are not stretched over the page; wider ones may scroll."""
    pixels = int.from_bytes(png.read_bytes()[16:20], "big")
    return "{width=520px}" if pixels < 1300 else "{.wide}"


def _caption(stem: str, name: str) -> str:
    rest = stem.removeprefix(name).strip("-").replace("-", " ")
    return f"Figure of the study {name}" + (f": {rest}" if rest else "")
