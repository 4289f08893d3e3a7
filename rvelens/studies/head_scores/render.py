"""The table and the figure of head scores, and what their intervals confirm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from rvelens.files.wording import counted, too_few
from rvelens.heads.layers import format_layers
from rvelens.plots import PAGE, Panel, forest
from rvelens.stats import FEW, above, format_change
from rvelens.studies.head_scores.finding import N_ORDERS
from rvelens.studies.head_scores.gains import VANILLA
from rvelens.studies.head_scores.masking import DRAWS
from rvelens.studies.head_scores.steering import ALL_HEADS, ORACLE, SWAPPED
from rvelens.studies.kit.base import Setup, Shown
from rvelens.studies.kit.settings import describe_setting, pair, value
from rvelens.tables import Table

CONTROL = "random"  # The score that ranks heads by chance.
_ORDERS = "random orders"
_MEASURES = ("accuracy", "auc", "yes_ratio")
Estimates = Mapping[str, Any]
# Columns: where the estimate of a score stands, and what is chance there.
_COLUMNS = {
    "region AUC": 0.5,
    "AUC over all heads": 0.0,
    "mass / area": 1.0,
    "correlation within layers": 0.0,
    "correlation over all heads": 0.0,
    "masking, accuracy": 0.0,
    "RVE as published": 0.0,
    "RVE tuned": 0.0,
    "halves agree": None,
    "agreement": 0.0,
}
# What the figure shows, as its axes say it.
DRAWN = {
    "AUC over all heads": "region AUC of first heads, minus all heads'",
    "correlation within layers": "rank correlation with region AUC",
    "masking, accuracy": "accuracy when masked, minus random heads'",
    "RVE tuned": "change of accuracy by tuned RVE",
}
_SIGNED = frozenset(name for name, chance in _COLUMNS.items() if chance == 0.0)


def estimates(data: Estimates, score: str) -> dict[str, Any]:
    """What was estimated for one score, by the names of `COLUMNS`; None where there is none."""
    finding = (data["finding"] or {}).get(score, {})
    agreement = (data["agreement"] or {}).get(score, {})
    return {
        "region AUC": finding.get("auc"),
        "AUC over all heads": finding.get("auc_over_all"),
        "mass / area": finding.get("enrichment"),
        "correlation within layers": finding.get("within"),
        "correlation over all heads": finding.get("overall"),
        "masking, accuracy": data["masking"]["scores"][score]["accuracy"]["less_random"],
        "RVE as published": _gain(data, f"{score}, published"),
        "RVE tuned": _gain(data, f"{score}, tuned"),
        "halves agree": data["stability"][score],
        "agreement": agreement.get("mean"),
    }


def _luck(data: Estimates, column: str) -> Mapping[str, float] | None:
    """What random orders of heads reach; None where nothing is said of it."""
    orders = (data["finding"] or {}).get("random_orders", {})
    return {
        "AUC over all heads": orders.get("auc_over_all"),
        "correlation within layers": orders.get("within"),
        "correlation over all heads": orders.get("overall"),
        "masking, accuracy": data["masking"]["random_orders"]["accuracy"],
    }.get(column)


def _gain(data: Estimates, setting: str) -> Mapping[str, float] | None:
    result = data["gains"]["result"]
    comparison = pair(result, setting, VANILLA) if result["rules"] else None
    return comparison and comparison["change"]["accuracy"]


def show_scores(setup: Setup, measured: Sequence[Estimates]) -> Shown:
    """One table and one figure, a row a score; what RVE was tuned to, and definitions."""
    (data,) = measured
    rows = {name: estimates(data, name) for name in data["definitions"]}
    shown = [column for column in _COLUMNS if any(row[column] for row in rows.values())]
    tables = {
        "": Table(
            f"Head scores, {data['model']}, {data['benchmark']}, {counted(data['pairs'], 'pair')}",
            ("score", *shown),
            [
                *((name, *(row[column] for column in shown)) for name, row in rows.items()),
                (_ORDERS, *(_luck(data, column) for column in shown)),
            ],
            _SIGNED,
            _notes(data),
        ),
        "definitions": Table(
            "Definitions",
            ("score", "of a head, mean over pairs", "source"),
            [(name, *definition) for name, definition in data["definitions"].items()],
        ),
        "tuned": _tuned(data),
        "masking": _masking(data),
    }
    figures = {"": _figure(rows, shown), "controls": _controls(data)}
    return Shown(tables, figures, sentences=tuple(_conclude(data, rows)))


def _notes(data: Estimates) -> tuple[str, ...]:
    k, layers, cost = data["k"], format_layers(data["layers"]), data["masking"]
    result = data["gains"]["result"]
    notes = [
        f"The {k} heads that rank first, in each of layers {layers}. Brackets: 95% bootstrap intervals "
        "over photographs; of halves, the middle 95% of draws. They do not hold the luck of an order "
        f"of heads, of which {CONTROL} is one. The row {_ORDERS} does: the middle 95% of {N_ORDERS}; "
        f"of masking the least and the most of {cost['draws']}.",
        f"Masking: accuracy minus that of {cost['draws']} random choices of as many heads of the same "
        f"layers, mean over {_counts(data)} heads a layer, "
        f"{counted(cost['questions'], 'question')}; below 0, "
        "these heads matter more.",
        "RVE: change of accuracy against the plain model on "
        f"{counted(result['questions'], 'question')}; as "
        "published is with RVE's default settings, whatever ranks the heads; tuned on "
        f"{data['gains']['validation']} others, in the same way for every score and control.",
        "Halves agree: share of the first heads that rankings from two disjoint halves of the pairs "
        f"have in common; by chance {k / data['n_heads']:.2f}.",
    ]
    if data["finding"]:
        notes.insert(
            1,
            "Region AUC, mass / area and correlations: "
            f"{counted(data['finding']['questions'], 'question')}; "
            "correlations are Spearman's, of the score and a head's mean region AUC, within layers as "
            f"the mean over layers {layers}. Scores that rank the same {k} heads first share their "
            "region AUC. The image gets "
            f"{data['finding']['image_attention']['value']:.3f} of the last token's attention.",
        )
    if data["agreement"]:
        notes.append(f"Agreement: rank correlation within layers with {data['agreement']['with']}.")
    return tuple(notes)


def _counts(data: Estimates) -> str:
    inside = [n for n in data["masking"]["counts"] if 0 < n < data["n_heads"]]
    return ", ".join(map(str, inside))


def _tuned(data: Estimates) -> Table:
    result, settings = data["gains"]["result"], data["gains"]["settings"]
    over = data["gains"]["over"]
    rows = []
    for name, setting in settings.items():
        for how in ("published", "tuned"):
            full = f"{name}, {how}"
            change = _gain(data, full)
            figures = {m: value(result, full, m) for m in _MEASURES} if change else {}
            rows.append(
                (
                    full,
                    describe_setting(setting) if how == "tuned" else "",
                    figures.get("accuracy"),
                    change,
                    figures.get("auc"),
                    figures.get("yes_ratio"),
                    *(changes[name] if how == "tuned" else None for changes in over.values()),
                )
            )
    versus = tuple(f"over {control}" for control in over)
    chosen = "chosen on validation questions"
    columns = ("steered by", chosen, "accuracy", "change", "AUC", "yes-ratio", *versus)
    rows.insert(0, _plain(result, len(columns)))
    return Table(
        f"RVE by each ranking, and its controls, {counted(result['questions'], 'test question')}",
        columns,
        rows,
        frozenset({"change", *versus}),
        (
            f"{SWAPPED}: RVE by the first ranking turned around. {ALL_HEADS}: the mask of every head's "
            "mean, no denoising, which tuned RVE may leave out as well. "
            f"{ORACLE}: the region of the answer as the mask: what could be gained if one knew where "
            f"to look. over {ALL_HEADS} and others: change of accuracy from that control to the way, "
            "both tuned, on the same questions.",
        ),
    )


def _plain(result: Estimates, n_columns: int) -> tuple[Any, ...]:
    """The row of the plain model."""
    if not result["rules"]:
        return ("plain", *[None] * (n_columns - 1))
    accuracy, auc, ratio = (value(result, VANILLA, measure) for measure in _MEASURES)
    return ("plain", "", accuracy, None, auc, ratio, *[None] * (n_columns - 6))


def _masking(data: Estimates) -> Table:
    cost = data["masking"]
    rows = [
        (str(n), *(cost["scores"][name]["accuracy"]["curve"][at] for name in cost["scores"]))
        for at, n in enumerate(cost["counts"])
    ]
    return Table(
        f"Accuracy by heads masked in each of layers {format_layers(cost['layers'])}",
        ("heads a layer", *cost["scores"]),
        rows,
        aside=True,
        notes=(f"{DRAWS}: mean over {cost['draws']} random orders of heads.",),
    )


def _figure(rows: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> Figure:
    panels = [
        Panel(label, [row[name] for row in rows.values()], _COLUMNS[name])
        for name, label in DRAWN.items()
        if name in shown
    ]
    return forest(list(rows), panels, controls=(CONTROL,), width=PAGE)


def _controls(data: Estimates) -> Figure:
    """Change of accuracy by each way to steer, the rankings' first."""
    names = list(data["gains"]["settings"])
    panels = [
        Panel(f"change of accuracy, {how}", [_gain(data, f"{name}, {how}") for name in names], 0.0)
        for how in ("published", "tuned")
    ]
    return forest(names, panels, controls=(CONTROL, SWAPPED, ALL_HEADS), width=PAGE)


def _conclude(data: Estimates, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is confirmed, by score; and that nothing is, where nothing is."""
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    sentences = []
    for column, claim in (
        (
            "AUC over all heads",
            "rank heads first that find the region better than random orders do",
        ),
        (
            "correlation within layers",
            "rise with region AUC within layers more than random orders do",
        ),
        ("masking, accuracy", "rank heads first whose masking costs more than any random order's"),
        ("RVE as published", "make RVE as published raise accuracy"),
        ("RVE tuned", "make tuned RVE raise accuracy on questions it was not tuned on"),
    ):
        by_score = {name: row[column] for name, row in rows.items() if row[column]}
        if by_score:
            wants, luck = column != "masking, accuracy", _luck(data, column)
            sentences.append(_claim(claim, by_score, wants, luck))
    sentences += _of_controls(data, list(rows))
    sentences.append(
        "Each interval stands alone: by chance about one in twenty excludes its level."
    )
    return sentences


def _of_controls(data: Estimates, scores: Sequence[str]) -> list[str]:
    """Whether these questions can tell that steering helps, and whether the ranking is what helps."""
    sentences = []
    controls = {
        name: _gain(data, f"{name}, tuned")
        for name in (ORACLE, ALL_HEADS, SWAPPED)
        if name in data["gains"]["settings"]
    }
    for name, change in controls.items():
        if change is not None:
            does = {
                True: f"raises accuracy ({format_change(change)})",
                False: f"lowers accuracy ({format_change(change)})",
                None: f"does not change accuracy ({format_change(change)}), as far as these "
                "questions tell",
            }
            sentences.append(f"{_upper(name)}, tuned: {does[above(change)]}.")
    for control, by_name in data["gains"]["over"].items():
        over = {n: e for n, e in by_name.items() if n in scores and e}
        if over:
            sentences.append(
                _claim(f"make tuned RVE raise accuracy beyond {control}, tuned", over, True)
            )
    return sentences


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _claim(
    claim: str,
    by_score: Mapping[str, Mapping[str, float]],
    wants: bool,
    luck: Mapping[str, float] | None = None,
) -> str:
    """Which scores' intervals lie beyond 0, or beyond what random orders of heads reach."""
    low, high = (luck["low"], luck["high"]) if luck else (0.0, 0.0)
    if luck:
        claim += f" ({low:+.3f} to {high:+.3f})"
    side = {name: above(estimate, low, high) for name, estimate in by_score.items()}
    yes, no = (
        [
            f"{name} ({format_change(by_score[name])})"
            for name, where in side.items()
            if where is sign
        ]
        for sign in (wants, not wants)
    )
    sentence = f"Scores that {claim}: {', '.join(yes) or 'none is confirmed'}"
    return f"{sentence}; the reverse is confirmed of {', '.join(no)}." if no else f"{sentence}."
