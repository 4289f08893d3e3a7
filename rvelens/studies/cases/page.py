"""The page of cases: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from rvelens.studies.cases.pictures import Pictures, colour
from rvelens.studies.kit.base import Measured

# Nothing is loaded and nothing runs, whatever a benchmark's texts hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MARKED = {
    "enhanced": "enhanced",
    "removed": "asked for by the sensitive heads, removed by denoising",
}


def page(data: Measured, name: str, shown: Mapping[str, Mapping[str, Pictures]]) -> str:
    """The whole page.

    Args:
        data: what the study measured.
        name: the model, as it is to be called.
        shown: the pictures of each chosen case, by benchmark and question id.
    """
    groups = _groups(data)
    title = f"Answers that {data['after']} flips, {name}"
    style = resources.files("rvelens").joinpath("data/cases.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}{_filters(len(groups))}</style>",
            "</head>",
            "<body>",
            "<header>",
            f"<h1>{escape(title)}</h1>",
            *_introduction(data),
            _counts(data),
            *_legend(data),
            _navigation(data, groups),
            "</header>",
            "<main>",
            *(_section(data, direction, groups, shown) for direction in ("gained", "lost")),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _groups(data: Measured) -> list[tuple[str, str]]:
    """Benchmark and group of the chosen cases; their place here is what anchors are named after."""
    return sorted({(name, flip["group"]) for name, flip in _chosen(data)})


def _chosen(data: Measured) -> Iterator[tuple[str, Measured]]:
    for name, benchmark in data["benchmarks"].items():
        for flip in benchmark["flips"]:
            if flip["id"] in benchmark["chosen"]:
                yield name, flip


def _filters(n_groups: int) -> str:
    """An anchor that is gone to hides all cases but its own; without `:has` it only moves there."""
    return "".join(
        f"body:has(#{key}:target) :is(article:not(.{key}), section:not(:has(.{key}))) "
        "{ display: none; }\n"
        for key in ("gained", "lost", *(f"g{n}" for n in range(n_groups)))
    )


def _introduction(data: Measured) -> Iterator[str]:
    before, after = escape(data["before"]), escape(data["after"])
    settings = data["parameters"].get(data["after"], {})
    parameters = ", ".join(f"{k} {v}" for k, v in settings.items() if k != "profile")
    yield (
        f"<p>The same questions, answered by {escape(data['model'])} under {before} and under {after}"
        + (f" ({escape(parameters)})" if parameters else "")
        + f". Gained: wrong under {before}, right under {after}. Lost: the reverse.</p>"
    )
    totals = Counter(
        flip["direction"]
        for benchmark in data["benchmarks"].values()
        for flip in benchmark["flips"]
    )
    here = Counter(flip["direction"] for _, flip in _chosen(data))
    counts = " and ".join(f"{here[x]} of all {totals[x]} {x} answers" for x in ("gained", "lost"))
    yield (
        f"<p>This page shows {counts}, drawn at random with seed {data['seed']}: at most "
        f"{data['n_cases']} of each kind and benchmark. None was picked by hand. All flips are in the "
        "CSV beside it. P(yes) is the probability of yes against no at the first token; right and "
        "wrong are told by the text, as the benchmark's official rule reads it.</p>"
    )


def _counts(data: Measured) -> str:
    head = ("", "questions", "gained", "lost", "unchanged", "McNemar p", "what is confirmed")
    rows = []
    for name, benchmark in data["benchmarks"].items():
        directions = Counter(flip["direction"] for flip in benchmark["flips"])
        p = "" if benchmark["mcnemar_p"] is None else f"{benchmark['mcnemar_p']:.3g}"
        cells = [
            benchmark["questions"], directions["gained"], directions["lost"],
            f"{benchmark['right_both']} right, {benchmark['wrong_both']} wrong", p,
            benchmark["verdict"],
        ]  # fmt: skip
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{_cells(head[1:], cells)}</tr>')
    top = "".join(f'<th scope="col">{title}</th>' for title in head)
    return (
        f'<table class="counts"><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _cells(titles: Sequence[str], cells: Sequence[Any]) -> str:
    """Cells that carry their column's title, for screens on which a row is a list."""
    return "".join(
        f'<td data-title="{escape(title)}">{escape(str(cell))}</td>'
        for title, cell in zip(titles, cells, strict=True)
    )


def _legend(data: Measured) -> Iterator[str]:
    """What the colours on the pictures mean."""
    layers = next(
        (m for benchmark in data["benchmarks"].values() for m in benchmark["masks"].values()), None
    )
    if not layers:
        return
    most = len(layers)
    swatches = "".join(
        f'<i style="background:{colour(count, most)}"></i>' for count in range(1, most + 1)
    )
    label = "1 layer" if most == 1 else f"1 to {most} layers"
    yield (
        f'<p class="legend">Image tokens marked in <span>{swatches}</span> {label} (layers '
        f"{escape(', '.join(layers))}), for the first token of the answer; dark where no token sees "
        "the picture.</p>"
    )


def _navigation(data: Measured, groups: Sequence[tuple[str, str]]) -> str:
    chosen = list(_chosen(data))
    kinds = Counter(flip["direction"] for _, flip in chosen)
    by_group = Counter((name, flip["group"]) for name, flip in chosen)
    several = len(data["benchmarks"]) > 1
    links = [("all", "all", len(chosen)), *((x, x, kinds[x]) for x in ("gained", "lost"))]
    if len(groups) > 1:
        links += [
            (
                f"g{n}",
                ": ".join(filter(None, (name if several else "", group))),
                by_group[name, group],
            )
            for n, (name, group) in enumerate(groups)
        ]
    anchors = " ".join(
        f'<a id="{key}" href="#{key}">{escape(text)} ({n})</a>' for key, text, n in links
    )
    return f"<nav>Show {anchors}</nav>"


def _section(
    data: Measured,
    direction: str,
    groups: Sequence[tuple[str, str]],
    shown: Mapping[str, Mapping[str, Pictures]],
) -> str:
    first, second = ("wrong", "right") if direction == "gained" else ("right", "wrong")
    title = (
        f"{direction.title()}: {first} under {escape(data['before'])}, {second} under "
        f"{escape(data['after'])}"
    )
    cases = [
        (groups.index((name, flip["group"])), name, flip)
        for name, flip in _chosen(data)
        if flip["direction"] == direction
    ]
    body = [
        case(data, flip, number, name, shown[name][flip["id"]])
        for number, name, flip in sorted(cases, key=lambda case: case[0])
    ]
    return "\n".join(
        ["<section>", f"<h2>{title}</h2>", *(body or ["<p>There is none.</p>"]), "</section>"]
    )


def case(data: Measured, flip: Measured, number: int, benchmark: str, pictures: Pictures) -> str:
    """One flip as HTML, its words beside its pictures; `data` names the methods before and after."""
    right = flip["direction"] == "gained"
    where = " · ".join(filter(None, (benchmark, flip["group"], flip["id"])))
    return "\n".join(
        [
            f'<article class="{flip["direction"]} g{number}">',
            '<div class="words">',
            f'<h3 dir="auto">{escape(flip["question"])}</h3>',
            f'<p class="where">{escape(where)}</p>',
            f"<p>The truth is <b>{escape(flip['truth'])}</b>.</p>",
            '<dl class="answers">',
            _answer(data["before"], flip["before"], not right),
            _answer(data["after"], flip["after"], right),
            "</dl>",
            *_layers(pictures),
            "</div>",
            _figures(flip, pictures),
            "</article>",
        ]
    )


def _answer(method: str, answer: Measured, right: bool) -> str:
    p = "" if answer["p_yes"] is None else f" <small>P(yes) {answer['p_yes']:.3f}</small>"
    mark = "✓ right" if right else "✗ wrong"
    return (
        f'<div class="{"right" if right else "wrong"}"><dt>{escape(method)}</dt>'
        f'<dd><q dir="auto">{escape(answer["answer"] or "")}</q>{p} <em>{mark}</em></dd></div>'
    )


def _layers(pictures: Pictures) -> Iterator[str]:
    """Tokens by layer, folded away."""
    if not pictures.layers:
        return
    yield "<details><summary>Tokens by layer</summary><table>"
    yield '<tr><th scope="col">layer</th><th scope="col">enhanced</th><th scope="col">removed</th></tr>'
    for layer, counts in pictures.layers.items():
        yield (
            f'<tr><th scope="row">{escape(layer)}</th><td>{counts["enhanced"]}</td>'
            f"<td>{counts['removed']}</td></tr>"
        )
    yield "</table></details>"


def _figures(flip: Measured, pictures: Pictures) -> str:
    parts = []
    if pictures.plain is not None:
        parts.append(_figure(pictures.plain, f"The picture of: {flip['question']}", "picture"))
    for name, uri in pictures.marked.items():
        parts.append(_figure(uri, f"Tokens {_MARKED[name]}", _MARKED[name]))
    if pictures.reason:
        parts.append(f'<p class="where">{escape(pictures.reason)}</p>')
    return f'<div class="pictures n{len(pictures.marked) + 1}">{"".join(parts)}</div>'


def _figure(uri: str, alternative: str, caption: str) -> str:
    return (
        f'<figure><img src="{uri}" alt="{escape(alternative)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
