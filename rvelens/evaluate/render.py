"""The tables of a run, for the terminal and for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

COLUMNS = (
    ("accuracy", "accuracy"),
    ("f1", "F1"),
    ("balanced_accuracy", "bal. acc."),
    ("precision", "prec."),
    ("recall", "recall"),
    ("specificity", "spec."),
    ("auc", "AUC"),
    ("yes_ratio", "yes-ratio"),
)


def render(report: Mapping[str, Any]) -> Group:
    """Tables for a rich console."""
    parts: list[Any] = [Text(_conditions(report)), Text()]
    for heading, header, rows, notes in tables(report):
        table = Table(*header, box=None, title=heading, title_justify="left", title_style="bold")
        for row in rows:
            table.add_row(*row)
        # A table without rows is as narrow as its header, and would break its title.
        parts += [
            table if rows else Text(heading, style="bold"),
            *(Text(note) for note in notes),
            Text(),
        ]
    return Group(*parts, *(Text(note) for note in report["notes"]))


def to_markdown(report: Mapping[str, Any]) -> str:
    """The same tables in Markdown."""
    parts = [_conditions(report)]
    for heading, header, rows, notes in tables(report):
        lines = [f"**{heading}**", "", _line(header), _line(["---"] + ["--:"] * (len(header) - 1))]
        parts.append("\n".join([*lines, *map(_line, rows)]))
        if notes:
            parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join([*parts, *report["notes"]]) + "\n"


def _conditions(report: Mapping[str, Any]) -> str:
    """What all methods had in common."""
    each = {
        f"prompt {d['prompt']!r}, "
        + (f"suffix {d['suffix']!r}" if d["suffix"] else "no suffix")
        + f", at most {d['max_new_tokens']} tokens, greedy"
        for d in report["decoding"].values()
    }
    return f"{report['model']['name']}: {'; '.join(sorted(each))}."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


Part = tuple[str, list[str], list[list[str]], list[str]]


def tables(report: Mapping[str, Any]) -> list[Part]:
    """Heading, header, rows and notes of each table, as text."""
    found: list[Part] = []
    for name, result in report["benchmarks"].items():
        if not result["rules"]:
            notes = _input_notes(report["input"][name])
            found.append((f"{name}: no question could be asked", ["question"], [], notes))
        for rule, scored in _rules(result).items():
            found.append(_metrics(name, rule, result, scored, report["input"][name]))
            if any("positive_no" in m for m in scored["methods"].values()):
                found.append(_positive_no(name, rule, scored))
            found += [*_groups(name, rule, scored), *_subsets(name, rule, scored)]
        if len(report["methods"]) > 1:
            found += [_comparison(name, rule, x) for rule, x in _rules(result).items()]
    for name, given in report["input"].items():
        if name not in report["benchmarks"]:
            notes = [*_input_notes(given), "Open-ended: score the answers with `rvelens judge`."]
            found.append((f"{name}: no yes/no questions", ["method", "empty answers"],
                          [[m, str(n)] for m, n in given["empty"].items()], notes))  # fmt: skip
    return found


def _rules(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by rule; once where both rules read every answer alike."""
    rules = dict(result["rules"])
    if rules and rules["official"]["methods"] == rules["strict"]["methods"]:
        return {"official and strict": rules["official"]}
    return rules


def _metrics(
    name: str, rule: str, result: Mapping[str, Any], scored: Mapping[str, Any], given: Any
) -> Part:
    header = ["method", *(title for _, title in COLUMNS), "unparsed"]
    rows = [
        [method, *(_cell(row[key], key == "accuracy") for key, _ in COLUMNS), str(row["unparsed"])]
        for method, row in scored["methods"].items()
    ]  # fmt: skip
    heading = f"{name}, {result['questions']} questions, {rule} rule, yes is positive"
    notes = []
    if rule != "strict":
        if result["left_out"]:
            notes.append(f"{result['left_out']} questions could not be asked and are left out.")
        notes += _input_notes(given)
    return heading, header, rows, notes


def _input_notes(given: Mapping[str, Any]) -> list[str]:
    notes = []
    for key, what in (("malformed", "malformed rows"), ("unreadable", "unreadable images")):
        if given[key]:
            notes.append(f"{len(given[key])} {what}, the first: {given[key][0]}")
    return notes


def _positive_no(name: str, rule: str, scored: Mapping[str, Any]) -> Part:
    keys = ("f1", "precision", "recall", "specificity")
    titles = dict(COLUMNS)
    rows = [
        [method, *(_cell(row["positive_no"][key], key == "f1") for key in keys)]
        for method, row in scored["methods"].items()
    ]
    header = ["method", *(titles[key] for key in keys)]
    return f"{name}, {rule} rule, no is positive (official)", header, rows, []


def _groups(name: str, rule: str, scored: Mapping[str, Any]) -> list[Part]:
    by_group = {method: row["by_group"] for method, row in scored["methods"].items()}
    first = next(iter(by_group.values()))
    if len(first) < 2:
        return []
    rows = [
        [method, *(_share(groups[group]["accuracy"]) for group in first)]
        for method, groups in by_group.items()
    ]
    header = ["method", *(f"{group} ({row['n']})" for group, row in first.items())]
    return [(f"{name}, {rule} rule, accuracy by group", header, rows, [])]


def _subsets(name: str, rule: str, scored: Mapping[str, Any]) -> list[Part]:
    names = {subset for row in scored["methods"].values() for subset in row["subsets"]}
    keys = ("accuracy", "f1", "precision", "recall", "yes_ratio")
    titles = dict(COLUMNS)
    parts = []
    for subset in sorted(names):
        rows = [
            [method, *(_share(row["subsets"][subset][key]) for key in keys)]
            for method, row in scored["methods"].items()
        ]
        n = next(iter(scored["methods"].values()))["subsets"][subset]["lists"]
        heading = f"{name}, {rule} rule, mean over {n} published lists of {subset}"
        parts.append((heading, ["method", *(titles[key] for key in keys)], rows, []))
    return parts


def _comparison(name: str, rule: str, scored: Mapping[str, Any]) -> Part:
    first = next(iter(scored["methods"]))
    header = ["method", "accuracy", "yes-ratio", "AUC", "gained / lost", "McNemar p", "verdict"]
    rows = []
    for pair in scored["pairs"]:
        if pair["before"] == first:
            change = [_change(pair["change"][key]) for key in ("accuracy", "yes_ratio", "auc")]
            counts = f"{pair['gained']} / {pair['lost']}"
            p = pair["mcnemar_p"]
            shown = f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
            rows.append([pair["after"], *change, counts, shown, pair["verdict"]])
    return f"{name}, against {first} on the same questions, {rule} rule", header, rows, []


def _cell(estimate: Mapping[str, float] | None, interval: bool) -> str:
    if estimate is None:
        return "-"
    ends = f" [{estimate['low']:.3f}, {estimate['high']:.3f}]" if interval else ""
    return f"{estimate['value']:.3f}{ends}"


def _change(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate['value']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
