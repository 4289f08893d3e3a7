"""The tables of a run, for the terminal and for a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.tables import Cell, Table, markdown_text

_COLUMNS = (
    ("accuracy", "accuracy"),
    ("f1", "F1"),
    ("balanced_accuracy", "bal. acc."),
    ("precision", "prec."),
    ("recall", "recall"),
    ("specificity", "spec."),
    ("auc", "AUC"),
    ("yes_ratio", "yes-ratio"),
)


@refuse_wrong_types
def render_report(report: Mapping[str, Any]) -> Group:
    """Tables for a rich console."""
    parts = [part for table in tables(report) for part in (table, Text())]
    notes = map(Text, report["notes"])
    return Group(Text(_conditions(report)), Text(), *parts, *notes)


@refuse_wrong_types
def to_markdown(report: Mapping[str, Any]) -> str:
    """The same tables in Markdown."""
    parts = [markdown_text(_conditions(report))]
    for table in tables(report):
        parts.append(f"**{markdown_text(table.title)}**\n\n{table.to_markdown()}")
        if table.notes:
            parts.append("\n".join(f"- {markdown_text(note)}" for note in table.notes))
    return "\n\n".join([*parts, *map(markdown_text, report["notes"])]) + "\n"


def _conditions(report: Mapping[str, Any]) -> str:
    """What all methods had in common."""
    texts = {
        f"prompt {d['prompt']!r}, "
        + (f"suffix {d['suffix']!r}" if d["suffix"] else "no suffix")
        + f", at most {d['max_new_tokens']} tokens, greedy"
        for d in report["decoding"].values()
    }
    return f"{report['model']['name']}: {'; '.join(sorted(texts))}."


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Every table of a run."""
    report_tables: list[Table] = []
    for name, result in report["benchmarks"].items():
        if not result["rules"]:
            notes = _input_notes(report["input"][name])
            title = f"{name}: no question could be asked"
            report_tables.append(Table(title, ("question",), (), notes=notes))
        for rule, scored in _rules(result).items():
            report_tables.append(_metrics(name, rule, result, scored, report["input"][name]))
            if any("positive_no" in m for m in scored["methods"].values()):
                report_tables.append(_positive_no(name, rule, scored))
            report_tables += [*_groups(name, rule, scored), *_subsets(name, rule, scored)]
        report_tables += [
            _comparison(name, rule, result, scored)
            for rule, scored in _rules(result).items()
            if scored["pairs"]
        ]
    for name, counts in report["input"].items():
        if name not in report["benchmarks"]:
            notes = (*_input_notes(counts), "Open-ended: score the answers with `rvelens judge`.")
            rows = list(counts["empty"].items())
            title = f"{name}: no yes/no questions"
            report_tables.append(Table(title, ("method", "empty answers"), rows, notes=notes))
    return report_tables


def _rules(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by rule; once where both rules read every answer alike."""
    rules = dict(result["rules"])
    if not rules:
        return {}
    own, also = rules["official"], rules.get("strict")
    name = result.get("rule", "official")  # reports of earlier versions do not name it
    if also is None or name == "strict":
        return {name: own}
    if own["methods"] == also["methods"]:
        return {f"{name} and strict": own}
    return {name: own, "strict": also}


def _metrics(
    name: str, rule: str, result: Mapping[str, Any], scored: Mapping[str, Any], counts: Any
) -> Table:
    # Labels that are other texts than yes and no have no positive class.
    shown = [(key, title) for key, title in _COLUMNS if result["positive"] or key == "accuracy"]
    columns = ("method", *(title for _, title in shown), "unparsed")
    rows = [
        [method, *(_cell(row[key], key == "accuracy") for key, _ in shown), row["unparsed"]]
        for method, row in scored["methods"].items()
    ]
    heading = f"{name}, {counted(result['questions'], 'question')}, {rule} rule"
    heading += ", yes is positive" if result["positive"] else ""
    notes = []
    if rule != "strict" or result.get("rule") == "strict":
        if result["left_out"]:
            n_left_out = counted(result["left_out"], "question")
            notes.append(f"{n_left_out} could not be asked and so left out.")
        notes += _input_notes(counts)
    return Table(heading, columns, rows, notes=tuple(notes))


def _input_notes(counts: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    reasons = (
        "reason why questions could not be asked",
        "reasons why questions could not be asked",
    )
    for key, label in (("malformed", ("malformed row",)), ("unreadable", reasons)):
        if counts[key]:
            notes.append(f"{counted(len(counts[key]), *label)}, the first: {counts[key][0]}")
    return tuple(notes)


def _positive_no(name: str, rule: str, scored: Mapping[str, Any]) -> Table:
    keys = ("f1", "precision", "recall", "specificity")
    titles = dict(_COLUMNS)
    rows = [
        [method, *(_cell(row["positive_no"][key], key == "f1") for key in keys)]
        for method, row in scored["methods"].items()
    ]
    columns = ("method", *(titles[key] for key in keys))
    return Table(f"{name}, {rule} rule, no is positive (official)", columns, rows)


def _groups(name: str, rule: str, scored: Mapping[str, Any]) -> list[Table]:
    by_group = {method: row["by_group"] for method, row in scored["methods"].items()}
    first = next(iter(by_group.values()))
    if len(first) < 2:
        return []
    rows = [
        [method, *(_share(groups[group]["accuracy"]) for group in first)]
        for method, groups in by_group.items()
    ]
    columns = ("method", *(f"{group} ({row['n']})" for group, row in first.items()))
    return [Table(f"{name}, {rule} rule, accuracy by group", columns, rows)]


def _subsets(name: str, rule: str, scored: Mapping[str, Any]) -> list[Table]:
    names = {subset for row in scored["methods"].values() for subset in row["subsets"]}
    keys = ("accuracy", "f1", "precision", "recall", "yes_ratio")
    titles = dict(_COLUMNS)
    parts = []
    for subset in sorted(names):
        rows = [
            [method, *(_share(row["subsets"][subset][key]) for key in keys)]
            for method, row in scored["methods"].items()
        ]
        n = next(iter(scored["methods"].values()))["subsets"][subset]["lists"]
        heading = f"{name}, {rule} rule, mean over {n} published lists of {subset}"
        parts.append(Table(heading, ("method", *(titles[key] for key in keys)), rows))
    return parts


def _comparison(
    name: str, rule: str, result: Mapping[str, Any], scored: Mapping[str, Any]
) -> Table:
    first = next(iter(scored["methods"]))
    metrics = {"accuracy": "accuracy", "yes_ratio": "yes-ratio", "auc": "AUC"}
    if not result["positive"]:
        metrics = {"accuracy": "accuracy"}
    columns = ("method", *metrics.values(), "gained / lost", "McNemar p", "verdict")
    rows = []
    for pair in scored["pairs"]:
        if pair["before"] == first:
            change = [_or_dash(pair["change"][key]) for key in metrics]
            counts = f"{pair['gained']} / {pair['lost']}"
            p = pair["mcnemar_p"]
            shown = f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
            rows.append([pair["after"], *change, counts, shown, pair["verdict"]])
    title = f"{name}, against {first} on the same questions, {rule} rule"
    return Table(title, columns, rows, frozenset({"accuracy", "yes-ratio", "AUC"}))


def _cell(estimate: Mapping[str, float] | None, interval: bool) -> Cell:
    """An estimate, or its value alone, which is text so that no share is written as a power."""
    if estimate is None or interval:
        return _or_dash(estimate)
    return f"{estimate['value']:.3f}"


def _or_dash(cell: Cell) -> Cell:
    return "-" if cell is None else cell


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
