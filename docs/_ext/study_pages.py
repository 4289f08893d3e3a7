"""Pages of docs/studies: what a study wrote, with the figures and files of its folder."""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.application import Sphinx


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
    html = [f"All with pictures: {{download}}`{p.name} <{p.name}>`." for p in folder.glob("*.html")]
    source[0] = "\n\n".join(
        [f"# {folder.name}", f"{about[:1].upper()}{about[1:]}.", *html, *pictures, body,
         f"Files: {links}.", f"Made by `{_command_of(folder, name)}`."]
    )  # fmt: skip


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
