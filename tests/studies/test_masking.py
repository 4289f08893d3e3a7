"""Masked heads: choices, margins against zeroed weights, curves, resumption, sentences."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from family_cases import hooked, profile_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import Benchmark, Item, load_benchmark, rules
from rvelens.model.hooked_lvlm import TINY
from rvelens.model.yes_no import yes_margin
from rvelens.studies import find_study
from rvelens.studies.kit.margins import MARGIN_METRICS, draw_figures
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import study_to_markdown, write_study
from rvelens.studies.masking import masks
from rvelens.studies.masking import study as masking
from rvelens.studies.masking.masks import LEAST, RANDOM, SENSITIVE

STUDY = find_study("masking")


def item(n, truth):
    return Item(
        str(n), str(n % 3), str(n % 3), QUESTIONS[n % 3], truth, None, "", lambda: IMAGES[n % 3]
    )


BENCHMARK = Benchmark("few", tuple(item(n, n % 2 == 0) for n in range(5)), (), rules.strict, {})


def go(model, out, profile=None, benchmark=BENCHMARK, batch_size=2, **options):
    return run_study(
        STUDY, model, [benchmark], out, profile=profile or profile_of(model),
        batch_size=batch_size, options=STUDY.settled(options),
    )  # fmt: skip


@given(st.integers(1, 64))
def test_the_default_series_is_even_and_ends_with_all_heads(n_heads):
    counts = masks.settled_counts([], n_heads)
    assert counts[0] == 0
    assert counts[-1] == n_heads
    assert len(counts) <= 9
    steps = Counter(np.diff(counts[:-1]).tolist())
    assert len(steps) <= 1
    if n_heads == 32:
        assert counts == [0, 4, 8, 12, 16, 20, 24, 28, 32]


def test_counts_that_were_given():
    assert masks.settled_counts([8, 2], 8) == [0, 2, 8]
    for wrong in ([9], [-1], [1.5], [True], ["1"]):
        with pytest.raises(
            ValueError, match=r"counts=.*: expected numbers of heads from 0 to 8, such"
        ):
            masks.settled_counts(wrong, 8)


@given(st.integers(2, 9), st.lists(st.integers(0, 3), min_size=1, unique=True), st.integers(0, 9))
def test_every_mask_of_a_count_has_as_many_heads_in_each_layer(n_heads, layers, seed):
    scores = torch.rand(4, n_heads, generator=torch.Generator().manual_seed(seed))
    profile = ARSProfile.from_scores(scores)
    counts = list(range(n_heads + 1))
    found = masks.choose_masks(profile, layers, counts, 3, seed)
    assert [len(found[who]) for who in (SENSITIVE, LEAST, RANDOM)] == [1, 1, 3]
    for one in (one for many in found.values() for one in many):
        for n, mask in zip(counts, one, strict=True):
            assert {layer: len(heads) for layer, heads in mask} == (
                dict.fromkeys(layers, n) if n else {}
            )
            assert all(len(set(heads)) == n for _, heads in mask)
        for small, large in pairwise(one[1:]):
            assert all(set(a[1]) < set(b[1]) for a, b in zip(small, large, strict=True))
    for n in range(1, n_heads):
        assert all(set(h) == set(profile.top(layer, n)) for layer, h in found[SENSITIVE][0][n])
        assert all(set(h) == set(profile.bottom(layer, n)) for layer, h in found[LEAST][0][n])
    assert masks.choose_masks(profile, layers, counts, 3, seed) == found
    assert masks.choose_masks(profile, layers, counts, 4, seed)[RANDOM][:3] == found[RANDOM]


def test_random_draws_differ(profile):
    found = masks.choose_masks(profile, [0, 1, 2], [4], 10, 0)[RANDOM]
    assert len({one[0] for one in found}) == 10
    assert len({heads for _, heads in found[0][0]}) == 3  # other heads in each layer


def zeroed(name, mask, question, image):
    """The margin of a fresh model whose o_proj has no weights for the masked heads."""
    hf_model, processor = build(name)
    inputs = HookedLVLM.from_pretrained(build(name)[0], processor=processor).prepare(
        image, question
    )
    modules = {m.layer_idx: m for m in hf_model.get_decoder().modules() if hasattr(m, "o_proj")}
    with torch.no_grad():
        for layer, heads in mask:
            for head in heads:
                modules[layer].o_proj.weight[:, 8 * head : 8 * head + 8] = 0
        return float(yes_margin(hf_model(**inputs).logits[:, -1], processor)[0])


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_5_vl", "llava_next"])
def test_margins_are_those_of_a_model_without_the_heads(name, tmp_path):
    model = hooked(name)
    setup, _, data = go(model, tmp_path, counts=[3, 8], layers="all")
    assert data["layers"] == [0, 1, 2]
    assert data["counts"] == [0, 3, 8]
    assert (data["questions"], data["photographs"]) == (5, 3)
    chosen = masking._masks(setup)
    distinct = list(dict.fromkeys(m for many in chosen.values() for one in many for m in one))
    assert len(distinct) == 14  # nothing, everything, and 12 choices between
    margins = setup.map_items(
        "margins", BENCHMARK.items, lambda batch: pytest.fail("they are kept")
    )
    for asked in BENCHMARK.items[:2]:
        for n in (0, 1, 2, 5):
            literal = zeroed(name, distinct[n], asked.text, asked.load())
            assert margins[asked.id][n] == pytest.approx(literal, abs=2e-4)
    right = [(margins[i.id][0] > 0) == i.truth for i in BENCHMARK.items]
    assert data["curves"][SENSITIVE]["accuracy"][0]["value"] == pytest.approx(sum(right) / 5)


def test_the_summary_against_loops():
    rng = np.random.default_rng(0)
    truth, cluster = rng.random(40) < 0.5, np.arange(40)
    margin = rng.normal(size=(14, 40)) + truth
    at = {
        SENSITIVE: [[0, 1, 2]],
        LEAST: [[0, 3, 2]],
        RANDOM: [[0, n, 2] for n in range(4, 14)],
    }
    found = draw_figures(truth, margin, cluster)
    data = masks.summary(found, at)
    for metric in MARGIN_METRICS:
        value = [found[metric][0, n] for n in range(14)]
        mean = sum(value[4:14]) / 10
        assert data["curves"][RANDOM][metric][1]["value"] == pytest.approx(mean, abs=1e-6)
        assert data["curves"][LEAST][metric][1]["value"] == pytest.approx(value[3], abs=1e-6)
        assert [one[1] for one in data["draws"][metric]] == pytest.approx(value[4:14], abs=1e-6)
        for who, column in ((SENSITIVE, 1), (LEAST, 3)):
            none, gap, everything = data["differences"][who][metric]
            assert (none, everything) == (None, None)
            assert gap == data["means"][who][metric]
            assert gap["value"] == pytest.approx(value[column] - mean, abs=1e-6)
            draws = found[metric][1:, column] - found[metric][1:, 4:14].mean(axis=1)
            assert gap["low"] == pytest.approx(np.percentile(draws, 2.5), abs=1e-6)
    assert masks.summary(found, {who: [one[::2] for one in many] for who, many in at.items()})[
        "means"
    ][SENSITIVE] == dict.fromkeys(MARGIN_METRICS)


def test_interrupted_and_taken_up_again(model, tmp_path, monkeypatch):
    batches = []
    original = masking._margins

    def counted(setup, batch, distinct):
        batches.append([i.id for i in batch.items])
        if len(batches) == 2:
            raise KeyboardInterrupt
        return original(setup, batch, distinct)

    monkeypatch.setattr(masking, "_margins", counted)
    with pytest.raises(KeyboardInterrupt):
        go(model, tmp_path / "a", counts=[4])
    data = go(model, tmp_path / "a", counts=[4])[2]
    assert batches.count(batches[0]) == 1
    n = len(batches)
    assert go(model, tmp_path / "a", counts=[4])[2] == data
    assert len(batches) == n
    monkeypatch.setattr(masking, "_margins", original)
    assert go(model, tmp_path / "b", counts=[4])[2] == data
    with pytest.raises(ValueError, match=r"options\.n_random was 10 and is 11"):
        go(model, tmp_path / "a", counts=[4], n_random=11)


def test_on_the_embedded_model(tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    ranked = ARSProfile.load(TINY / "profile.safetensors")
    benchmark = load_benchmark("action-scenes", n=20)
    setup, made_with, data = go(
        model, tmp_path, ranked, benchmark, 4, counts=[6, 12], n_questions=4
    )
    assert (data["questions"], data["of_questions"], data["layers"]) == (4, 20, [3, 4, 5])
    shown = masking._show(setup, [data])
    files = write_study(tmp_path, STUDY, [made_with], [data], shown)
    assert {"masking.png", "masking-auc.svg", "masking.csv"} <= {f.name for f in files}
    text = study_to_markdown(STUDY, shown)
    assert "accuracy with heads masked in layers 3-5; 4 of 20 questions of action-scenes" in text
    assert "it prints no numbers, and does not say in which layers" in text
    only_yes = benchmark.keep([i for i in benchmark.items if i.truth])
    setup, _, data = go(model, tmp_path / "yes", ranked, only_yes, 4, counts=[12], n_questions=2)
    shown = masking._show(setup, [data])
    assert list(shown.figures) == [""]
    assert shown.sentences == ("2 photographs are too few to say anything.",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_random": 9}, "n_random=9: expected at least 10 random choices of heads"),
        ({"n_questions": 0}, "n_questions=0: expected at least 1"),
        ({"counts": [9]}, r"counts=\[9\]: expected numbers of heads from 0 to 8"),
        ({"layers": "3"}, "expected layers from 0 to 2"),
        ({"layers": "middle"}, "correct 'middle'"),
    ],
)
def test_options_out_of_range(model, tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        go(model, tmp_path, **options)


def test_what_cannot_be_masked_is_said_before_work(model, profile, tmp_path):
    opened = Benchmark("some-open", (item(0, None),), (), rules.judged, {}, positives=())
    with pytest.raises(ValueError, match="some-open has open-ended questions: expected yes/no"):
        go(model, tmp_path / "a", benchmark=opened)
    with pytest.raises(ValueError, match="a profile of 2 layers x 8 heads for a model of 3 x 8"):
        go(model, tmp_path / "b", ARSProfile(profile.ranking[:2]))
    with pytest.raises(ValueError, match="without a head profile"):
        run_study(STUDY, model, [BENCHMARK], tmp_path / "c", options=STUDY.settled({}))

    def torn():
        raise ValueError("no image")

    lost = BENCHMARK.keep([Item("0", "0", "0", "does it ?", True, None, "", torn)])
    with pytest.raises(
        ValueError, match=r"none of the questions \(1\) of few could be asked: expected readable"
    ):
        go(model, tmp_path / "d", benchmark=lost)


def number(value, half):
    return {"value": value, "low": value - half, "high": value + half}


@pytest.mark.parametrize(
    ("value", "half", "says"),
    [
        (-0.2, 0.1, "costs more accuracy than masking random ones (-0.200 [-0.300, -0.100]"),
        (0.2, 0.1, "costs less accuracy than masking random ones"),
        (-0.1, 0.2, "no difference in accuracy from random heads that these questions confirm"),
    ],
)
def test_sentences_claim_what_intervals_confirm(value, half, says):
    gap = number(value, half)
    point = number(0.5, 0.1)
    data = {
        "photographs": 20,
        "counts": [0, 2, 4],
        "means": {who: {"accuracy": gap, "auc": None} for who in (SENSITIVE, LEAST)},
        "differences": {SENSITIVE: {"accuracy": [None, gap, None]}},
        "curves": {SENSITIVE: {"accuracy": [point] * 3}},
        "draws": {"accuracy": [[0.9, 0.6, 0.5], [0.9, 0.4, 0.5]]},
    }
    first, second, last = masking._conclude(data)
    assert says in first
    assert f"the {SENSITIVE} heads" in first
    assert f"the {LEAST} heads" in second
    sure = "confirmed at 2 heads" if half == 0.1 else "confirmed at no number of heads"
    assert sure in last
    assert "largest at 2" in last
    assert "1 of 2 random draws keep more accuracy" in last
    few = masking._conclude({**data, "photographs": 19})
    assert few == ["19 photographs are too few to say anything."]
