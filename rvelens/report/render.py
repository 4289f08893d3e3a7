"""A report as tables on the terminal and in Markdown, with what it means in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rvelens.report.build import Report

Number = Mapping[str, float]


@dataclass(frozen=True)
class Sheet:
    """One table: a title, column heads, rows of text, and sentences below."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def sheets(report: Report) -> list[Sheet]:
    """The report's tables."""
    data = report.data
    tables = [_groups(data), _layers(data), _steering("Steering, untouched test questions", data["steering"])]
    for name, rows in data["injected_faults"].items():
        tables.append(_steering(f"Injected fault: image attention scores {name}, all layers", rows))
    return tables


def render(report: Report) -> Group:
    """For a rich console."""
    parts: list[Any] = []
    for sheet in sheets(report):
        table = Table(title=sheet.title, title_justify="left", title_style="bold")
        for i, column in enumerate(sheet.columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i > 0)
        for row in sheet.rows:
            table.add_row(*row)
        parts += [table, *(Text(note) for note in sheet.notes), Text("")]
    return Group(*parts)


def to_markdown(report: Report) -> str:
    """For a model card."""
    lines: list[str] = []
    for sheet in sheets(report):
        lines += [f"### {sheet.title}", "", "| " + " | ".join(sheet.columns) + " |"]
        lines.append("|---" + "|--:" * (len(sheet.columns) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in sheet.rows]
        lines += ["", *sheet.notes, ""]
    return "\n".join(lines).rstrip() + "\n"


def _groups(data: Mapping[str, Any]) -> Sheet:
    rows = [
        (
            name,
            str(group["n"]),
            *(_interval(group.get(metric)) for metric in ("accuracy", "f1", "auc", "yes_ratio")),
        )
        for name, group in data["groups"].items()
    ]
    title = (
        f"{data['model']} on {data['n_test']} test questions about action scenes, 95% intervals"
    )
    drop = data["groups"]["PC-no"]["accuracy"]["value"] - data["groups"]["CP-no"]["accuracy"]["value"]
    note = (
        "PC: the truth agrees with the prior verb of the object; CP: it goes against it. "
        f"CP-no, the prior verb asked where it is false, is {100 * drop:.1f} points "
        f"{'below' if drop >= 0 else 'above'} PC-no."
    )
    return Sheet(title, ("group", "n", "accuracy", "F1", "AUC", "yes-ratio"), rows, (note,))


def _layers(data: Mapping[str, Any]) -> Sheet:
    rows = [
        (
            str(layer),
            f"{row['image_attention']:.3f}",
            f"{row['ars']:.3f}",
            f"{row['auc_top']:.3f} / {row['auc_bottom']:.3f}",
            f"{row['enrichment_top']:.2f} / {row['enrichment_bottom']:.2f}",
        )
        for layer, row in enumerate(data["by_layer"])
    ]
    rho = data["ars_vs_region_auc"]
    within = ", ".join(f"{x:+.2f}" for x in rho["within_layer"])
    direction = (
        "find the true region better" if rho["all_heads"] > 0 else "find the true region worse"
    )
    note = (
        f"Rank correlation of a head's ARS with how well it finds the true region: "
        f"{rho['all_heads']:+.2f} over all heads, within layers {within}. Over all heads, those "
        f"with a higher ARS {direction}."
    )
    columns = (
        "layer",
        "image attention",
        "mean ARS",
        "region AUC top / bottom heads",
        "enrichment top / bottom",
    )
    title = f"Heads: ARS over {data['n_pairs']} contrastive pairs, localisation on test questions"
    return Sheet(title, columns, rows, (note,))


def _steering(title: str, rows: Mapping[str, Any]) -> Sheet:
    table = [
        (
            f"{name} ({row['setting']})" if row["setting"] else name,
            _interval(row["accuracy"]),
            _gain(row.get("accuracy_gain")),
            _interval(row["auc"]),
            _gain(row.get("auc_gain")),
            f"{row['yes_ratio']['value']:.2f}",
        )
        for name, row in rows.items()
    ]
    columns = ("setting", "accuracy", "gain", "AUC", "gain", "yes-ratio")
    notes = tuple(_verdict(name, row) for name, row in rows.items() if name != "plain")
    return Sheet(title, columns, table, notes)


def _verdict(name: str, row: Mapping[str, Any]) -> str:
    """What may be said: a gain only where the untouched test split's interval excludes zero."""
    said = [_claim(metric, row[f"{metric}_gain"]) for metric in ("accuracy", "auc")]
    return f"- {name}: {said[0]}; {said[1]}."


def _claim(metric: str, gain: Number) -> str:
    label = "AUC" if metric == "auc" else metric
    if gain["low"] > 0:
        return f"{label} rises by {gain['value']:.3f}"
    if gain["high"] < 0:
        return f"{label} falls by {-gain['value']:.3f}"
    return f"no change in {label} that these questions confirm ({gain['value']:+.3f})"


def _interval(number: Number | None) -> str:
    if number is None:
        return ""
    return f"{number['value']:.3f} [{number['low']:.3f}, {number['high']:.3f}]"


def _gain(number: Number | None) -> str:
    if number is None:
        return ""
    return f"{number['value']:+.3f} [{number['low']:+.3f}, {number['high']:+.3f}]"
