"""The numbers that the paper printed, to put measured ones beside.

Values are shares from 0 to 1 where the paper prints percent, scores from 0 to 10 where a judge gave
them, and in "figures" what each metric says. Nothing is corrected: what cannot be is noted.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from rvelens.files.atomic import read_json
from rvelens.stats import Estimate

TABLES = ("table1", "table2", "table3", "table4", "table5", "table7", "figures")
# Questions of the published files, and how many of them have the answer yes.
COUNTED: Mapping[str, tuple[int, int]] = {
    "pope-random": (3000, 1500),
    "pope-popular": (3000, 1500),
    "pope-adversarial": (3000, 1500),
    "amber-relation": (1664, 975),
}
# The last part of the names of each model's weights.
_NAMES = {
    "llava-1.5-7b": r"llava-v?1\.5-7b(-hf)?",
    "llava-1.5-13b": r"llava-v?1\.5-13b(-hf)?",
    "llava-next-7b": r"llava-next-7b|llava-v1\.6-vicuna-7b(-hf)?",
    "instructblip-7b": r"instructblip-(vicuna-)?7b",
    "sharegpt4v-7b": r"sharegpt4v-7b(-hf)?",
}


@dataclass(frozen=True)
class PaperCell:
    """One number of the paper.

    Attributes:
        table: one of `TABLES`.
        model: "llava-1.5-7b" and the like, see `model_key`; None where none is named.
        benchmark: a name of `rvelens.benchmarks.BENCHMARKS`, or "rbench-instance", of which the paper
            does not say whether things are marked by boxes or masks; None where none is named.
        relation: "action", "spatial", "object" or, for a benchmark that is not divided, "all".
        method: "vanilla", "vcd", "icd", "vaf" or "rve"; None where `setting` tells it.
        metric: "accuracy", "f1" (of the answer yes) or "judge_score"; others in "figures".
        value: the number, in the units of the module.
        setting: what else tells this number from others: "scope" ("none", "sensitive" or "all"
            heads) and "denoise" in tables 5 and 7, "domain" in table 2; in figures "figure", "layers",
            and "end" ("low" or "high") of a range.
        note: what a reader has to know, in sentences; "" for nothing. That an accuracy and an F1
            exclude each other is computed, by `possible` and `possible_counts`.
    """

    table: str
    model: str | None
    benchmark: str | None
    relation: str | None
    method: str | None
    metric: str
    value: float
    setting: Mapping[str, str | bool] = field(default_factory=dict, hash=False)
    note: str = ""

    def get(self, key: str) -> Any:
        """A field or a part of the setting by its name; None where this cell has none."""
        return getattr(self, key) if key in _FIELDS else self.setting.get(key)


_FIELDS = tuple(f.name for f in fields(PaperCell) if f.name != "setting")


@cache
def paper_cells(table: str) -> tuple[PaperCell, ...]:
    """All cells of a table, in the order of its rows.

    Args:
        table: one of `TABLES`.

    Raises:
        ValueError: no such table.
    """
    if table not in TABLES:
        raise ValueError(_unknown("table", table, TABLES))
    path = resources.files("rvelens") / "data" / "paper" / f"{table}.json"
    content = read_json(path)
    cells = [_noted(_cell(table, row), content["notes"]) for row in content["rows"]]
    pairs: dict[PaperCell, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        pairs[_place(cell)][cell.metric] = cell.value
    doubts = {place: _doubt(place.benchmark, pair) for place, pair in pairs.items()}
    return tuple(_add_note(cell, doubts[_place(cell)]) for cell in cells)


def lookup(table: str | None = None, **keys: str | bool | None) -> tuple[PaperCell, ...]:
    """The cells that have all of the given values, of one table or of all.

    `lookup(benchmark="mmrel-real", method="rve", metric="accuracy")`, `lookup("table5", denoise=True)`.

    Args:
        table: one of `TABLES`; None for all of them.
        keys: model, benchmark, relation, method or metric, or a name in a cell's setting; None for
            the cells that have no such value.

    Raises:
        ValueError: no such table, or no cell of any table has such a key.
    """
    every = [cell for name in TABLES for cell in paper_cells(name)]
    key_names = {"model", "benchmark", "relation", "method", "metric"}.union(
        *(c.setting for c in every)
    )
    for key in keys:
        if key not in key_names:
            raise ValueError(_unknown("key", key, sorted(key_names)))
    among = every if table is None else paper_cells(table)
    return tuple(c for c in among if all(c.get(key) == value for key, value in keys.items()))


def compare(
    cells: Iterable[PaperCell], measured: Mapping[PaperCell, Estimate]
) -> list[dict[str, Any]]:
    """Paper and measurement side by side, one flat row a cell, in the order of the cells.

    Args:
        cells: from `paper_cells` or `lookup`.
        measured: what was measured of them, in the cell's unit, with its 95% interval.

    Returns:
        rows with the keys of a cell and of its setting, then "paper", "measured", "low", "high" and
        "difference" (measured minus paper; these four None where not measured), and "note".

    Raises:
        ValueError: something was measured that is none of the cells.
    """
    cells = list(cells)
    stray = measured.keys() - set(cells)
    if stray:
        description = ", ".join(
            str(v) for k, v in _row(stray.pop(), None).items() if v and k != "note"
        )
        raise ValueError(
            f"a measurement of the cell {description}, which is not among the {len(cells)} given: "
            "expected a measurement of a given cell; add the cell, or leave it out."
        )
    return [_row(cell, measured.get(cell)) for cell in cells]


def model_key(name: str) -> str | None:
    """The paper's model that a hub name or folder stands for, by its last part; None for another.

    LLaVA-NeXT-7B is taken to be the one that decodes with Vicuna. The paper names no decoder, and
    Mistral's is of 7B too; but the decoders of its other four models are Vicunas, and a ranking of
    heads means nothing for other weights. So "llava-v1.6-mistral-7b-hf" gives None. So does any
    name with more to it ("llava-1.5-7b-hf-tuned"), and InstructBLIP on flan-T5.
    """
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].casefold()
    return next((key for key, names in _NAMES.items() if re.fullmatch(names, last)), None)


def possible(accuracy: float, f1: float, decimals: int = 2) -> bool:
    """Whether any yes/no answers, for any share of true yes, have this accuracy and this F1.

    Shares TP + FP + FN + TN = 1 have accuracy a = TP + TN, errors FP + FN = 1 - a and F1 =
    2 TP / (2 TP + 1 - a), which grows with TP in [0, a] without a gap, from 0 to b(a) = 2a / (1 + a).
    So an F1 is possible exactly if it is at most b(a). (At a = 1 it is 1, but lower a round to that.)

    Means of both over subsets obey the same bound: b(a) = 2 - 2 / (1 + a) is concave, so mean F1 <=
    mean b(a) <= b(mean a). Nor does it matter which answer is positive. It does matter that every
    answer counts as yes or no: one that is neither is an error of accuracy, but not always of F1.

    Args:
        accuracy: in percent, rounded to `decimals`; all that rounds to it counts, half up or down.
        f1: the same.
        decimals: digits behind the point.

    Raises:
        ValueError: not a percentage, or decimals below 0.
    """
    _, most = _window("accuracy", accuracy, decimals)
    least, _ = _window("F1", f1, decimals)
    # The bound grows with accuracy, so the largest that rounds to it decides.
    return least <= _bound(most)


def possible_counts(accuracy: float, f1: float, n: int, n_yes: int, decimals: int = 2) -> bool:
    """Whether yes/no answers to n questions, n_yes of them with the truth yes, have these figures.

    With c of n right and t of those yes, F1 is 2t / (2t + n - c), where t <= n_yes and c - t <=
    n - n_yes. An F1 of 0 / 0 is not counted. One run over all questions is meant: means over subsets
    or seeds are no ratios of these counts.

    Args:
        accuracy: in percent, rounded to `decimals`; all that rounds to it counts, half up or down.
        f1: the same, of the answer yes.
        n: questions.
        n_yes: those among them where yes is right.
        decimals: digits behind the point.

    Raises:
        ValueError: not a percentage, decimals below 0, or n_yes not from 0 to n.
    """
    if not 0 <= n_yes <= n or n < 1:
        raise ValueError(
            f"n={n} and n_yes={n_yes}: expected at least 1 question, and from 0 to n with the truth "
            "yes; pass counts of one benchmark."
        )
    least, most = _window("accuracy", accuracy, decimals)
    low, high = _window("F1", f1, decimals)
    for right in range(math.ceil(least * n), math.floor(most * n) + 1):
        for hits in range(max(0, right - (n - n_yes)), min(n_yes, right) + 1):
            whole = 2 * hits + n - right
            if whole and low * whole <= 2 * hits <= high * whole:
                return True
    return False


def _window(name: str, percent: float, decimals: int) -> tuple[Fraction, Fraction]:
    """Least and largest share that round to a percentage, exactly."""
    if not 0 <= percent <= 100 or decimals < 0:
        raise ValueError(
            f"{name} {percent} with {decimals} decimals: expected percent from 0 to 100 with at "
            "least 0 decimals; multiply a fraction by 100."
        )
    middle, half = Fraction(str(percent)), Fraction(1, 2 * 10**decimals)
    return max((middle - half) / 100, Fraction(0)), min((middle + half) / 100, Fraction(1))


def _bound(accuracy: Fraction) -> Fraction:
    return 2 * accuracy / (1 + accuracy)


def _doubt(benchmark: str | None, pair: Mapping[str, float]) -> str:
    """Why an accuracy and an F1 cannot both be; "" where they can, or one is not there."""
    if not {"accuracy", "f1"} <= pair.keys():
        return ""
    accuracy, f1 = (round(100 * pair[metric], 2) for metric in ("accuracy", "f1"))
    both = f"accuracy {accuracy:.2f}% and F1 {f1:.2f}%"
    if not possible(accuracy, f1):
        most = 100 * float(_bound(Fraction(str(accuracy)) / 100))
        return (
            f"No yes/no answers have both {both}: with that accuracy, F1 is at most {most:.2f}%, "
            "whatever the share of yes."
        )
    n, n_yes = COUNTED.get(benchmark or "", (0, 0))
    if n and not possible_counts(accuracy, f1, n, n_yes):
        return f"No yes/no answers to {n} questions, {n_yes} of them yes, have both {both}."
    return ""


def _cell(table: str, row: Mapping[str, Any]) -> PaperCell:
    cell_fields: dict[str, Any] = {
        key: row.get(key) for key in _FIELDS if key not in ("table", "note")
    }
    setting = {key: value for key, value in row.items() if key not in cell_fields}
    return PaperCell(table=table, setting=setting, **cell_fields)


def _noted(cell: PaperCell, notes: Iterable[Mapping[str, Any]]) -> PaperCell:
    """The cell with those notes of its file that are of such cells."""
    for note in notes:
        if all(cell.get(key) == value for key, value in note["where"].items()):
            cell = _add_note(cell, note["text"])
    return cell


def _add_note(cell: PaperCell, text: str) -> PaperCell:
    return replace(cell, note=f"{cell.note} {text}".strip())


def _place(cell: PaperCell) -> PaperCell:
    """What the cells of one accuracy and F1 have in common."""
    return replace(cell, metric="", value=0.0, note="")


def _row(cell: PaperCell, estimate: Estimate | None) -> dict[str, Any]:
    keys = {key: cell.get(key) for key in _FIELDS if key not in ("value", "note")}
    numbers = dict.fromkeys(("value", "low", "high")) if estimate is None else estimate.to_json()
    return {
        **keys,
        **cell.setting,
        "paper": cell.value,
        "measured": numbers["value"],
        "low": numbers["low"],
        "high": numbers["high"],
        "difference": None if estimate is None else round(estimate.value - cell.value, 6),
        "note": cell.note,
    }


def _unknown(kind: str, name: str, expected: Iterable[str]) -> str:
    names = list(expected)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return f"{kind} {name!r}: expected one of {', '.join(names)}; did you mean {near!r}?"
