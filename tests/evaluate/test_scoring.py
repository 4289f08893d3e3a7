"""Metrics against counting one by one, intervals against another way to draw, comparisons."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from rvelens.benchmarks import Benchmark, Item
from rvelens.benchmarks.rules import pope, strict
from rvelens.evaluate import Answer, score
from rvelens.evaluate.scoring import read_answers, verdict
from rvelens.stats import auc, auc_of_draws

SAYINGS = ["Yes", "No", "maybe", "", "yes, he is", "No, not at all."]


def benchmark(truths, rule=pope, sources=None, **more):
    items = [
        Item(str(n), f"{n}.jpg", (sources or truths)[n] if sources else f"{n}.jpg", f"q{n}?", truth,
             None, "even" if n % 2 == 0 else "odd", lambda: Image.new("RGB", (4, 4)))
        for n, truth in enumerate(truths)
    ]  # fmt: skip
    return Benchmark("mine", tuple(items), (), rule, {}, **more)


def answers(texts, margins=None):
    margins = margins or [None] * len(texts)
    return {
        str(n): Answer(str(n), t, m) for n, (t, m) in enumerate(zip(texts, margins, strict=True))
    }


def by_hand(truths, said):
    """Each metric, counted question by question."""
    n = len(truths)
    true_yes = [s for t, s in zip(truths, said, strict=True) if t]
    true_no = [s for t, s in zip(truths, said, strict=True) if not t]
    says_yes = [t for t, s in zip(truths, said, strict=True) if s is True]
    hits = sum(s is True for s in true_yes)
    recall = hits / len(true_yes) if true_yes else None
    specificity = sum(s is False for s in true_no) / len(true_no) if true_no else None
    precision = sum(says_yes) / len(says_yes) if says_yes else None
    missed = sum(s is not True for s in true_yes)
    wrong = sum(s is True for s in true_no)
    return {
        "accuracy": sum(s is not None and s == t for t, s in zip(truths, said, strict=True)) / n,
        "precision": precision,
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * hits / (2 * hits + missed + wrong) if 2 * hits + missed + wrong else None,
        "balanced_accuracy": None if None in (recall, specificity) else (recall + specificity) / 2,
        "yes_ratio": len(says_yes) / n,
    }


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(SAYINGS)), min_size=1, max_size=12))
def test_every_metric_under_both_rules(rows):
    truths, texts = [t for t, _ in rows], [s for _, s in rows]
    result = score(benchmark(truths), {"m": answers(texts)})
    for name, rule in (("official", pope), ("strict", strict)):
        said = [rule(text) for text in texts]
        figures = result["rules"][name]["methods"]["m"]
        for metric, value in by_hand(truths, said).items():
            got = figures[metric]
            assert (got is None) == (value is None), metric
            if value is not None:
                assert math.isclose(got["value"], value, abs_tol=1e-6)
                assert got["low"] <= got["value"] + 1e-6
                assert got["high"] >= got["value"] - 1e-6
        assert figures["unparsed"] == sum(s is None for s in said)
        assert sum(figures["cells"].values()) == len(rows)
        for group, start in (("even", 0), ("odd", 1)):
            if len(rows) > start:
                expected = by_hand(truths[start::2], said[start::2])["accuracy"]
                assert math.isclose(figures["by_group"][group]["accuracy"], expected, abs_tol=1e-6)


def test_no_as_the_positive_class_is_the_same_with_yes_and_no_exchanged():
    truths, texts = [True, True, False, False, False], ["Yes", "No", "No", "Yes", "No"]
    flipped = {"Yes": "No", "No": "Yes"}
    plain = score(benchmark(truths, positives=("no", "yes")), {"m": answers(texts)})
    other = score(benchmark([not t for t in truths]), {"m": answers([flipped[t] for t in texts])})
    positive_no = plain["rules"]["official"]["methods"]["m"]["positive_no"]
    expected = other["rules"]["official"]["methods"]["m"]
    for metric in ("f1", "precision", "recall", "specificity"):
        assert positive_no[metric]["value"] == expected[metric]["value"]
    assert "positive_no" not in expected


@settings(deadline=None)
@given(st.data())
def test_auc_with_repeated_questions(data):
    n = data.draw(st.integers(2, 8))
    truths = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    margins = data.draw(st.lists(st.integers(-2, 2).map(float), min_size=n, max_size=n))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    scored = read_answers(benchmark(truths), answers(["Yes"] * n, margins), range(n), pope)
    repeated = np.repeat(np.arange(n), weights)
    expected = auc(scored.truth[repeated], scored.margin[repeated])
    (got,) = auc_of_draws(scored.truth, scored.margin, weights[:, None])
    assert (math.isnan(got) and math.isnan(expected)) or math.isclose(got, expected)


def test_an_interval_covers_what_it_says():
    """Clusters of four equal questions: the interval must be that of a quarter as many."""
    rng = np.random.default_rng(0)
    truths = [True] * 400
    right = np.repeat(rng.random(100) < 0.7, 4)
    texts = ["Yes" if r else "No" for r in right]
    sources = [f"{n // 4}.jpg" for n in range(400)]
    alone = score(benchmark(truths), {"m": answers(texts)})
    clustered = score(benchmark(truths, sources=sources), {"m": answers(texts)})
    widths = []
    for result in (alone, clustered):
        estimate = result["rules"]["official"]["methods"]["m"]["accuracy"]
        widths.append(estimate["high"] - estimate["low"])
    p = right.mean()
    for width, n in zip(widths, (400, 100), strict=True):
        assert width == pytest.approx(2 * 1.96 * math.sqrt(p * (1 - p) / n), rel=0.12)


def test_paired_comparison_against_counting():
    truths = [True, False] * 20
    before = ["Yes", "Yes"] * 10 + ["No", "No"] * 10
    after = ["Yes", "No"] * 15 + ["No", "Yes"] * 5
    result = score(benchmark(truths), {"a": answers(before), "b": answers(after)})
    (pair,) = result["rules"]["official"]["pairs"]
    right = [
        [(s == "Yes") == t for t, s in zip(truths, said, strict=True)] for said in (before, after)
    ]
    gained = sum(b and not a for a, b in zip(*right, strict=True))
    lost = sum(a and not b for a, b in zip(*right, strict=True))
    assert (pair["before"], pair["after"]) == ("a", "b")
    assert (pair["gained"], pair["lost"]) == (gained, lost)
    assert pair["mcnemar_p"] == binomtest(gained, gained + lost).pvalue
    assert pair["change"]["accuracy"]["value"] == pytest.approx((gained - lost) / 40)
    assert pair["change"]["auc"] is None


def test_a_method_that_only_moves_the_threshold_is_named():
    rng = np.random.default_rng(1)
    truths = [bool(t) for t in rng.integers(0, 2, 600)]
    margins = [float(m) for m in rng.normal(size=600) + np.array(truths) * 2 - 0.3]
    moved = [m + 1.0 for m in margins]
    said = [["Yes" if m > 0 else "No" for m in one] for one in (margins, moved)]
    result = score(
        benchmark(truths), {"a": answers(said[0], margins), "b": answers(said[1], moved)}
    )
    (pair,) = result["rules"]["official"]["pairs"]
    assert pair["change"]["auc"]["value"] == 0
    assert "says yes more often" in pair["verdict"]
    assert "AUC" not in pair["verdict"]


@pytest.mark.parametrize(("accuracy", "auc", "ratio"), list(product((-1, 0, 1), repeat=3)))
def test_verdicts_claim_nothing_that_is_not_confirmed(accuracy, auc, ratio):
    def change(sign):
        return {"value": 0.1 * sign, "low": 0.1 * sign - 0.05, "high": 0.1 * sign + 0.05}

    changes = {"accuracy": change(accuracy), "auc": change(auc), "yes_ratio": change(ratio),
               "balanced_accuracy": None}  # fmt: skip
    said = verdict(changes, 0.01, 100)
    assert ("more accurate" in said) == (accuracy == 1)
    assert ("less accurate" in said) == (accuracy == -1)
    assert ("rises" in said) == (auc == 1)
    assert ("falls" in said) == (auc == -1)
    assert ("says yes" in said) == (ratio != 0)
    assert (said == "no change confirmed") == (accuracy == auc == ratio == 0)
    assert ("no other change" in said) == (accuracy == auc == 0 and ratio != 0)
    assert "accurate" not in verdict(changes, 0.06, 100)
    assert verdict(changes, 0.01, 19) == "too few photographs to say"


def test_what_some_method_could_not_be_asked_is_left_out_for_all():
    said = answers(["Yes", "No", "Yes"])
    torn = {**said, "1": Answer("1", error="torn")}
    result = score(benchmark([True, True, True]), {"a": said, "b": torn})
    assert (result["questions"], result["left_out"]) == (2, 1)
    assert result["rules"]["official"]["methods"]["a"]["accuracy"]["value"] == 1
    nothing = score(benchmark([True]), {"a": {"0": Answer("0", error="torn")}})
    assert (nothing["questions"], nothing["rules"]) == (0, {})


def test_the_mean_over_published_lists():
    lists = {"balanced": (frozenset({"0", "1"}), frozenset({"2", "3", "gone"}), frozenset({"9"}))}
    result = score(
        benchmark([True, True, True, False], subsets=lists),
        {"m": answers(["Yes", "No", "Yes", "No"])},
    )
    means = result["rules"]["official"]["methods"]["m"]["subsets"]["balanced"]
    assert means["lists"] == 2
    assert means["accuracy"] == 0.75
