"""A report as tables on the terminal and in Markdown, with what it means in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.text import Text

from rvelens.stats import format_change
from rvelens.studies.demo.build import DemoReport
from rvelens.studies.demo.settings import DEFAULT, ORACLE, TUNED
from rvelens.studies.kit.base import Measured
from rvelens.tables import Table, markdown_text

Number = Mapping[str, float]


def _tables(report: DemoReport) -> list[Table]:
    """The report's tables."""
    data = report.data
    tables = [
        _groups(data),
        _layers(data),
        _steering("Steering", data["steering"], data["n_validation"]),
    ]
    for name, part in data["injected_faults"].items():
        title = f"Injected fault: image scores {name}, every layer, last token's row"
        tables.append(_steering(title, part, data["n_validation"]))
    tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *_in_short(data)))
    return tables


def render_demo(report: DemoReport) -> Group:
    """For a rich console."""
    return Group(*(part for table in _tables(report) for part in (table, Text())))


def demo_to_markdown(report: DemoReport) -> str:
    """For a model card."""
    lines: list[str] = []
    for table in _tables(report):
        title, notes = markdown_text(table.title), map(markdown_text, table.notes)
        lines += [f"### {title}", "", table.to_markdown(), "", *notes, ""]
    return "\n".join(lines).rstrip() + "\n"


def _groups(data: Measured) -> Table:
    rows = [
        (
            name,
            group["n"],
            *(group.get(metric) for metric in ("accuracy", "f1", "auc", "yes_ratio")),
        )
        for name, group in data["groups"]["rows"].items()
    ]
    title = f"{data['model']} on {data['n_test']} test questions about action scenes, 95% intervals"
    gap = data["groups"]["cp_no_gap"]
    note = (
        "PC: the person does what the object's prior says; CP: something else. CP-no asks for the "
        f"prior verb where it is false; its accuracy is {format_change(gap)} below that of PC-no."
    )
    return Table(title, ("group", "n", "accuracy", "F1", "AUC", "yes-ratio"), rows, notes=(note,))


def _layers(data: Measured) -> Table:
    heads = data["heads_and_region"]
    rho = heads["rank_correlation"]
    rows = [
        (
            str(layer),
            f"{row['image_attention']:.3f}",
            f"{row['ars']:.3f}",
            f"{row['auc_top']:.3f} / {row['auc_bottom']:.3f}",
            f"{row['enrichment_top']:.2f} / {row['enrichment_bottom']:.2f}",
            f"{rho['by_layer'][layer]:+.2f}",
        )
        for layer, row in enumerate(heads["by_layer"])
    ]
    columns = (
        "layer",
        "image attention",
        "mean ARS",
        f"region AUC, top / bottom {min(5, data['heads'] // 2)} heads",
        "enrichment, top / bottom",
        "ARS ~ region AUC",
    )
    title = f"Heads: ARS over {data['n_pairs']} contrastive pairs, localisation on test questions"
    within = rho["mean_within_layers"]
    if within["low"] > 0:
        finding = "by and large heads that ARS ranks higher find the true region better"
    elif within["high"] < 0:
        finding = "by and large heads that ARS ranks higher find the true region worse"
    else:
        finding = "these questions do not show that ARS tells which heads find the true region"
    signs = [correlation > 0 for correlation in rho["by_layer"]]
    note = (
        "Rank correlation of ARS with finding the true region, mean within layers: "
        f"{format_change(within)}, above 0 in {sum(signs)} of {len(signs)}; over all "
        f"heads {rho['all_heads']:+.2f}. So {finding}."
    )
    return Table(title, columns, rows, notes=(note,))


def _steering(title: str, part: Mapping[str, Any], n_validation: int) -> Table:
    rows = part["rows"]
    table = [
        (
            f"{name}: {row['setting']}" if row["setting"] else name,
            row["accuracy"],
            row.get("accuracy_gain"),
            row["auc"],
            row.get("auc_gain"),
            f"{row['yes_ratio']['value']:.2f}",
        )
        for name, row in rows.items()
    ]
    columns = ("setting", "accuracy", "gain", "AUC", "gain", "yes-ratio")
    title += f"; tuned on {n_validation} validation questions, reported on test questions"
    notes = [
        f"Mean image attention of the last token, plain: {part['image_attention']:.3f}. The control "
        "has no denoising mask, so that what it gains over RVE may be owed to that."
    ]
    notes += [_verdict(name, row, "gain") for name, row in rows.items() if name != "plain"]
    notes.append(_verdict("RVE, tuned, over the tuned control", rows[TUNED], "over_control"))
    return Table(title, columns, table, frozenset({"gain"}), tuple(notes))


def _in_short(data: Measured) -> tuple[str, ...]:
    """What all of it says about RVE on this model, whichever way it fell."""
    rows = data["steering"]["rows"]
    gains = [_claim("accuracy", rows[name]["accuracy_gain"]) for name in (DEFAULT, TUNED, ORACLE)]
    n = 2 * (1 + len(data["injected_faults"])) * len(rows)
    return (
        f"In short, without a fault: RVE with the paper's defaults, {gains[0]}; RVE tuned, {gains[1]}; "
        f"the true region, {gains[2]}.",
        f"Each interval stands alone: by chance about one in twenty of {n} comparisons excludes 0.",
    )


def _verdict(name: str, row: Mapping[str, Any], against: str) -> str:
    """What may be said: a gain only where the untouched test split's interval excludes zero."""
    claims = [_claim(metric, row[f"{metric}_{against}"]) for metric in ("accuracy", "auc")]
    return f"- {name}: {claims[0]}; {claims[1]}."


def _claim(metric: str, gain: Number) -> str:
    label = "AUC" if metric == "auc" else metric
    if gain["low"] > 0:
        return f"{label} rises by {gain['value']:.3f}"
    if gain["high"] < 0:
        return f"{label} falls by {-gain['value']:.3f}"
    return f"no change in {label} that these questions confirm ({gain['value']:+.3f})"
