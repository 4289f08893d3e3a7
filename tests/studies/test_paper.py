"""The paper's numbers: cells, what they cannot be, and measured ones beside them."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rvelens.benchmarks import BENCHMARKS
from rvelens.stats import Estimate
from rvelens.studies.kit.paper import (
    COUNTED,
    TABLES,
    PaperCell,
    compare,
    lookup,
    model_key,
    paper_cells,
    possible,
    possible_counts,
)

CELLS = {"table1": 250, "table2": 16, "table3": 32, "table4": 24, "table5": 20, "table7": 20}
CELLS["figures"] = 13
IMPOSSIBLE = {
    ("llava-next-7b", "rbench-instance", "vanilla"),
    ("instructblip-7b", "amber-relation", "vcd"),
    ("llava-1.5-7b", "pope-adversarial", "vcd"),
    ("llava-1.5-7b", "pope-adversarial", "vaf"),
    ("llava-1.5-7b", "pope-adversarial", "rve"),
}


def value(table: str, **keys) -> float:
    (cell,) = lookup(table, **keys)
    return cell.value


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_is_there_once(table):
    cells = paper_cells(table)
    assert len(cells) == CELLS[table]
    places = Counter((c.model, c.benchmark, c.relation, c.method, c.metric, *sorted(c.setting.items()))
                     for c in cells)  # fmt: skip
    assert set(places.values()) == {1}


@pytest.mark.parametrize("table", TABLES)
def test_keys_are_those_of_the_package(table):
    for cell in paper_cells(table):
        assert cell.table == table
        assert cell.model is None or model_key(cell.model) == cell.model
        assert cell.benchmark in (*BENCHMARKS, "rbench-instance", None)
        assert cell.method in ("vanilla", "vcd", "icd", "vaf", "rve", None)
        assert cell.relation in ("action", "spatial", "object", "all", None)
        if cell.metric in ("accuracy", "f1"):
            assert 0.3 < cell.value < 1
        if cell.metric == "judge_score":
            assert 6 < cell.value < 9


@pytest.mark.parametrize(
    ("model", "benchmark", "method", "accuracy", "f1"),
    [
        ("llava-1.5-7b", "mmrel-real", "vanilla", 0.7112, 0.7732),
        ("llava-1.5-7b", "mmrel-real", "rve", 0.7808, 0.8110),
        ("instructblip-7b", "mmrel-real", "vcd", 0.6897, 0.7962),
        ("llava-next-7b", "mmrel-dalle", "icd", 0.6762, 0.7479),
        ("sharegpt4v-7b", "mmrel-dalle", "rve", 0.7253, 0.7562),
        ("llava-1.5-7b", "rbench-image", "icd", 0.7274, 0.8226),
        ("llava-1.5-13b", "rbench-image", "vaf", 0.8289, 0.8753),
        ("llava-next-7b", "rbench-instance", "vanilla", 0.6459, 0.8315),
        ("sharegpt4v-7b", "rbench-instance", "rve", 0.7586, 0.8600),
        ("llava-next-7b", "amber-relation", "vcd", 0.5583, 0.3990),
        ("llava-1.5-13b", "amber-relation", "rve", 0.8125, 0.8332),
    ],
)
def test_cells_of_table_1(model, benchmark, method, accuracy, f1):
    keys = {"model": model, "benchmark": benchmark, "method": method}
    assert value("table1", metric="accuracy", **keys) == accuracy
    assert value("table1", metric="f1", **keys) == f1


@pytest.mark.parametrize(
    ("table", "keys", "expected"),
    [
        ("table2", {"model": "llava-next-7b", "domain": "dalle", "method": "rve"}, 7.32),
        ("table2", {"model": "instructblip-7b", "domain": "real", "method": "vanilla"}, 6.19),
        ("table3", {"model": "sharegpt4v-7b", "benchmark": "rbench-image", "method": "rve"}, 0.8031),
        ("table4", {"benchmark": "pope-popular", "method": "vaf", "metric": "f1"}, 0.8611),
        ("table5", {"model": "instructblip-7b", "scope": "sensitive", "denoise": True,
                    "metric": "accuracy"}, 0.7012),
        ("table7", {"model": "llava-next-7b", "scope": "all", "denoise": False, "metric": "f1"},
         0.7938),
        ("figures", {"figure": "3", "end": "high"}, 0.164),
        ("figures", {"figure": "7", "model": "instructblip-7b"}, 0.5),
    ],
)  # fmt: skip
def test_cells_of_other_tables(table, keys, expected):
    assert value(table, **keys) == expected


@pytest.mark.parametrize(
    ("table", "least", "most"), [("table1", 0.54, 22.94), ("table3", 0.80, 23.57)]
)
def test_relative_gains_are_those_that_the_text_states(table, least, most):
    gains = []
    for before in lookup(table, method="vanilla", metric="accuracy"):
        keys = {"model": before.model, "benchmark": before.benchmark, "metric": "accuracy"}
        gains.append(100 * (value(table, method="rve", **keys) / before.value - 1))
    assert round(min(gains), 2) == least
    assert round(max(gains), 2) == most


@pytest.mark.parametrize("table", ["table5", "table7"])
def test_the_ablation_begins_and_ends_with_rows_of_table_1(table):
    for method, setting in (
        ("vanilla", {"scope": "none", "denoise": False}),
        ("rve", {"scope": "all", "denoise": True}),
    ):
        for cell in lookup(table, **setting):
            keys = {"model": cell.model, "benchmark": cell.benchmark, "metric": cell.metric}
            assert cell.value == value("table1", method=method, **keys)


def test_global_beats_sensitive_only_and_denoising_helps_as_the_text_says():
    for table, denoise in product(("table5", "table7"), (False, True)):
        for cell in lookup(table, scope="sensitive", denoise=denoise, metric="accuracy"):
            keys = {"model": cell.model, "metric": "accuracy"}
            assert value(table, scope="all", denoise=denoise, **keys) > cell.value
    for table, scope in product(("table5", "table7"), ("sensitive", "all")):
        for cell in lookup(table, scope=scope, denoise=False, metric="accuracy"):
            keys = {"model": cell.model, "metric": "accuracy", "scope": scope}
            assert value(table, denoise=True, **keys) > cell.value


def test_exactly_the_impossible_pairs_are_noted():
    noted = [c for table in TABLES for c in paper_cells(table) if "No yes/no answers" in c.note]
    assert {(c.model, c.benchmark, c.method) for c in noted} == IMPOSSIBLE
    assert Counter(c.metric for c in noted) == {"accuracy": 5, "f1": 5}
    (cell,) = (c for c in noted if c.benchmark == "rbench-instance" and c.metric == "f1")
    assert cell.note.endswith(
        "No yes/no answers have both accuracy 64.59% and F1 83.15%: with that accuracy, F1 is at most "
        "78.49%, whatever the share of yes."
    )
    (cell,) = (c for c in noted if c.benchmark == "amber-relation" and c.metric == "accuracy")
    assert cell.note == (
        "No yes/no answers to 1664 questions, 975 of them yes, have both accuracy 69.41% and F1 76.24%."
    )


def test_what_the_paper_leaves_open_is_noted_where_it_is():
    assert all("VAE" in cell.note for cell in lookup("table4", method="vaf"))
    assert not any("VAE" in cell.note for cell in lookup("table4", method="rve"))
    assert all("garbled" in cell.note for cell in paper_cells("table5"))
    assert all("with boxes" in cell.note for cell in lookup(benchmark="rbench-instance"))
    assert not any(cell.note for cell in lookup("table1", benchmark="mmrel-real"))


def test_amber_counts_yes_as_positive_as_its_note_says():
    n, n_yes = COUNTED["amber-relation"]
    fitting = Counter()
    for cell in lookup("table1", benchmark="amber-relation", metric="f1"):
        keys = {"model": cell.model, "benchmark": cell.benchmark, "method": cell.method}
        pair = [round(100 * x, 2) for x in (value("table1", metric="accuracy", **keys), cell.value)]
        assert "with yes, 24 of these 25" in cell.note
        assert "with no 18." in cell.note
        fitting["yes"] += possible_counts(*pair, n, n_yes)
        fitting["no"] += possible_counts(*pair, n, n - n_yes)
    assert fitting == {"yes": 24, "no": 18}


def percent(share: Fraction, decimals: int) -> float:
    return float(round(100 * share, decimals))


def figures(tp: int, fp: int, fn: int, tn: int) -> tuple[Fraction, Fraction] | None:
    """Accuracy and F1 of counts, by definition; None where F1 is 0 / 0."""
    if not tp + fp + fn:
        return None
    return Fraction(tp + tn, tp + fp + fn + tn), Fraction(2 * tp, 2 * tp + fp + fn)


counts = st.integers(0, 2000)
tables = st.tuples(counts, counts, counts, counts).filter(lambda t: sum(t[:3]) > 0)
digits = st.integers(0, 3)


@given(tables, digits)
def test_real_confusion_tables_raise_no_false_alarm(table, decimals):
    both = [percent(share, decimals) for share in figures(*table)]
    assert possible(*both, decimals)
    assert possible_counts(*both, sum(table), table[0] + table[2], decimals)


@given(st.lists(tables, min_size=2, max_size=5), digits)
def test_means_over_subsets_raise_no_false_alarm(subsets, decimals):
    each = [figures(*table) for table in subsets]
    means = [sum(x) / len(each) for x in zip(*each, strict=True)]
    assert possible(*(percent(mean, decimals) for mean in means), decimals)


def test_possible_finds_every_pair_of_whole_percents_that_some_table_has():
    for accuracy in range(101):
        least, most = max(accuracy - 0.5, 0) / 100, min(accuracy + 0.5, 100) / 100
        a = np.linspace(least, most, 5)[:, None]
        tp = a * np.concatenate([[0], np.geomspace(1e-7, 1, 2000)])
        with np.errstate(invalid="ignore"):
            found = np.unique(2 * tp / (2 * tp + 1 - a))
        found = found[np.isfinite(found)]
        for f1 in range(101):
            nearest = np.abs(100 * found - f1).min()
            assert possible(float(accuracy), float(f1), 0) == bool(nearest <= 0.5 + 1e-9)


small = st.integers(0, 4)


@given(small, small, small, small, st.data())
def test_possible_counts_against_all_tables(tp, fp, fn, tn, data):
    """Figures that some table of so many questions has, but maybe none with so many true yes."""
    assume(tp + fp + fn)
    given_ = [percent(share, 2) for share in figures(tp, fp, fn, tn)]
    n = tp + fp + fn + tn
    n_yes = data.draw(st.integers(0, n))
    expected = False
    for hits, rejections in product(range(n_yes + 1), range(n - n_yes + 1)):
        both = figures(hits, n - n_yes - rejections, n_yes - hits, rejections)
        expected |= both is not None and [percent(share, 2) for share in both] == given_
    assert possible_counts(*given_, n, n_yes) == expected


few = st.integers(0, 60)


@given(few, few, few, few, st.integers(-40, 40))
def test_possible_counts_near_an_f1_that_there_is(tp, fp, fn, tn, off):
    """Four decimals are finer than the steps of counts: most F1 beside a real one have none."""
    assume(tp + fp + fn)
    accuracy, f1 = (percent(share, 4) for share in figures(tp, fp, fn, tn))
    f1 = round(min(max(f1 + off / 1e4, 0.0), 100.0), 4)
    n_yes, n_no = tp + fn, fp + tn
    hits = [t for t in range(n_yes + 1) if 0 <= tp + tn - t <= n_no]
    others = [figures(t, n_no - (tp + tn - t), n_yes - t, tp + tn - t) for t in hits]
    least, most = (100 * Fraction(str(f1)) + e * Fraction(1, 200) for e in (-1, 1))
    expected = any(least <= 10**4 * other[1] <= most for other in others if other)
    assert possible_counts(accuracy, f1, n_yes + n_no, n_yes, 4) == expected


def test_the_largest_f1_is_the_edge():
    assert possible(64.59, 78.49)
    assert not possible(64.59, 78.50)
    assert possible(0.0, 0.0)
    assert not possible(0.0, 1.0)
    assert possible(100.0, 50.0)  # 99.999 rounds to 100


def test_an_f1_of_nothing_is_none():
    assert not possible_counts(100.0, 0.0, 3, 0)
    assert possible_counts(66.67, 0.0, 3, 0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((101.0, 50.0), "^accuracy 101.0 with 2 decimals: expected percent from 0 to 100"),
        ((50.0, -1.0), "^F1 -1.0 with 2 decimals: expected percent"),
        ((50.0, math.nan), "^F1 nan with 2 decimals: expected percent"),
        ((50.0, 50.0, -1), "^accuracy 50.0 with -1 decimals: .*; multiply a fraction by 100.$"),
    ],
)
def test_what_is_no_percentage(arguments, match):
    with pytest.raises(ValueError, match=match):
        possible(*arguments)


@pytest.mark.parametrize(("n", "n_yes"), [(0, 0), (3, 4), (3, -1)])
def test_what_are_no_counts(n, n_yes):
    with pytest.raises(
        ValueError, match=f"^n={n} and n_yes={n_yes}: expected .*; pass counts of one"
    ):
        possible_counts(50.0, 50.0, n, n_yes)


def test_lookup_takes_any_keys():
    assert lookup("table4") == paper_cells("table4")
    assert len(lookup(method="rve", metric="accuracy", relation="spatial")) == 16
    assert len(lookup("table5", scope="all")) == 8
    assert {cell.table for cell in lookup(benchmark="mmrel-real", metric="f1")} == {
        "table1", "table5", "table7",
    }  # fmt: skip
    assert lookup("table2", scope="all") == ()
    assert {cell.metric for cell in lookup("figures", model=None, method="vcd")} == {
        "latency_over_vanilla"
    }


def test_lookup_of_what_there_is_not():
    with pytest.raises(
        ValueError, match=r"^table 'table6': expected one of table1, .*; did you mean"
    ):
        paper_cells("table6")
    with pytest.raises(ValueError, match=r"^key 'modle': expected one of .*; did you mean 'model'"):
        lookup(modle="llava-1.5-7b")


def test_compare_puts_paper_and_measurement_side_by_side():
    cells = lookup("table5", model="llava-1.5-7b", scope="all", metric="accuracy")
    rows = compare(cells, {cells[1]: Estimate(0.75, 0.7, 0.8)})
    place = {
        "table": "table5",
        "model": "llava-1.5-7b",
        "benchmark": "mmrel-real",
        "relation": "action",
        "method": None,
        "metric": "accuracy",
        "scope": "all",
    }
    nothing = dict.fromkeys(("measured", "low", "high", "difference"))
    note = cells[0].note
    found = {"measured": 0.75, "low": 0.7, "high": 0.8, "difference": -0.0308}
    assert rows == [
        {**place, "denoise": False, "paper": 0.7488, **nothing, "note": note},
        {**place, "denoise": True, "paper": 0.7808, **found, "note": note},
    ]
    assert [list(row) for row in rows] == [
        [*place, "denoise", "paper", "measured", "low", "high", "difference", "note"]
    ] * 2


def test_compare_refuses_a_measurement_of_no_cell():
    here, other = paper_cells("table4")[:2]
    match = r"table4, llava-1.5-7b, pope-random, all, vanilla, f1, 0.855, which is not among the 1 "
    with pytest.raises(ValueError, match=match):
        compare([here], {other: Estimate(0.5, 0.4, 0.6)})


def test_cells_are_told_apart_by_their_setting():
    one, other = (
        PaperCell("table2", None, None, None, None, "f1", 0.5, {"domain": d}) for d in "ab"
    )
    assert one != other
    assert {one: 1, other: 2}[other] == 2


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b"),
        ("liuhaotian/llava-v1.5-7b", "llava-1.5-7b"),
        ("llava-hf/llava-1.5-13b-hf", "llava-1.5-13b"),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", "llava-next-7b"),
        ("Salesforce/instructblip-vicuna-7b", "instructblip-7b"),
        ("Lin-Chen/ShareGPT4V-7B", "sharegpt4v-7b"),
        ("/models/ShareGPT4V-7B-hf/", "sharegpt4v-7b"),
        ("D:\\models\\llava-1.5-7b-hf", "llava-1.5-7b"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", None),
        ("llava-hf/llava-v1.6-vicuna-13b-hf", None),
        ("Salesforce/instructblip-vicuna-13b", None),
        ("Salesforce/instructblip-flan-t5-xl", None),
        ("Lin-Chen/ShareGPT4V-13B", None),
        ("Lin-Chen/ShareGPT4V-7B_Pretrained_vit-large336-l12", None),
        ("someone/llava-1.5-7b-hf-tuned", None),
        ("llava-1.5-7b/llava-interleave-qwen-7b-hf", None),
        ("llava-hf/llava-1x5-7b-hf", None),
        ("rvelens/tiny", None),
        ("", None),
    ],
)
def test_model_key(name, key):
    assert model_key(name) == key
