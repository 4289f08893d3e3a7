"""The study of patching: numbers against sums in loops, sentences, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from picture_questions import few_draws
from scipy.stats import spearmanr

from rvelens.benchmarks import scenes
from rvelens.benchmarks.action_scenes import contrastive_pairs, make_questions, patch_mask
from rvelens.model.yes_no import yes_and_no
from rvelens.patching import pair_runs, patch_attention, patch_heads, patch_tokens
from rvelens.studies import Setup, find_study
from rvelens.studies.kit.run import run_study
from rvelens.studies.patching import study
from rvelens.studies.patching.render import SETS, _conclude, _ranks

STUDY = find_study("patching")
N = 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_draws(monkeypatch, study)


def weighted(values, gaps):
    """The mean of values, each counted by its gap, in a loop."""
    total = sum(value.double() * gap for value, gap in zip(values, gaps, strict=True))
    return (total / sum(gaps)).numpy()


def shown(estimates):
    return np.array([one["value"] for one in estimates])


def test_numbers_against_loops(model, profile, tmp_path):
    pairs = contrastive_pairs("validation", 2)
    options = {"n": N, "k": 2}
    benchmark = scenes.load_scenes(n=N)
    _, _, data = run_study(
        STUDY, model, [benchmark], tmp_path, profile=profile, pairs=pairs, options=options
    )
    assert (data["questions"], data["pairs"], data["photographs"]) == (N, 2, N)
    questions, answers = make_questions("test", N), yes_and_no(model.processor)
    images = [
        pair_runs(model, (q.image, q.text), (questions[(n + 1) % N].image, q.text), answers)
        for n, q in enumerate(questions)
    ]
    texts = [
        pair_runs(model, (p.image, p.question), (p.image, p.contrastive), answers) for p in pairs
    ]
    for kind, runs in (("images", images), ("texts", texts)):
        gaps = [abs(one.clean_difference - one.corrupted_difference) for one in runs]
        heads = weighted([patch_heads(one).values for one in runs], gaps)
        np.testing.assert_allclose(shown(data[kind]["heads"]), heads.ravel(), atol=1e-4)
        attention = weighted([patch_attention(one).values for one in runs], gaps)
        np.testing.assert_allclose(shown(data[kind]["attention"]), attention, atol=1e-4)
        rank = -profile.ranking.argsort(dim=1).numpy()
        rho = [spearmanr(rank[n], heads[n])[0] for n in range(model.n_layers)]
        assert data[kind]["correlation"]["value"] == pytest.approx(np.mean(rho), abs=1e-3)
        first = [heads[n, profile.top(n, 2)].mean() - heads[n].mean() for n in range(len(rank))]
        assert data[kind]["top"]["value"] == pytest.approx(np.mean(first), abs=1e-4)
        low, high = data[kind]["luck"]
        assert -1 < low < 0 < high < 1
    gaps = [abs(one.clean_difference - one.corrupted_difference) for one in images]
    regions = []
    for one, question in zip(images, questions, strict=True):
        side = round(int(one.image_positions().sum()) ** 0.5)
        inside = patch_mask(question.regions["verb"], (side, side), (96, 96)).ravel()
        positions = np.flatnonzero(one.image_positions().numpy())[inside]
        chosen = one.image_positions() & False
        chosen[positions.tolist()] = True
        regions.append(patch_tokens(one, chosen).values)
    np.testing.assert_allclose(shown(data["images"]["region"]), weighted(regions, gaps), atol=1e-4)
    assert data["images"]["whole"][0]["value"] == pytest.approx(1.0, abs=1e-5)
    assert "region" not in data["texts"]


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


SURE, UNSURE = estimate(0.3, 0.1, 0.5), estimate(0.01, -0.1, 0.1)


def some_data(photographs=200):
    of = {
        "heads": [SURE, UNSURE, estimate(-0.4, -0.5, -0.3), None],
        "attention": [SURE, None],
        "k": 1, "correlation": SURE, "top": UNSURE, "luck": [-0.2, 0.2],
    }  # fmt: skip
    sets = {"region": [SURE, SURE], "others": [UNSURE, UNSURE], "whole": [SURE, SURE]}
    return {
        "model": "m", "benchmark": "b", "questions": 5, "pairs": 4, "photographs": photographs,
        "left_out": {"images": 1, "texts": 2}, "rank": [[1, 2], [2, 1]],
        "images": {**of, **sets, "gain": [SURE, UNSURE]}, "texts": of,
    }  # fmt: skip


def test_sentences_claim_what_intervals_confirm():
    says = " ".join(_conclude(some_data()))
    assert "more of the answer than as many other image tokens before layers 0. " in says
    assert (
        "Two images, one question: ARS correlates with the effects of heads, beyond random orders: rank"
        in says
    )
    assert _conclude(some_data(photographs=3)) == ["3 photographs are too few to say anything."]
    by_luck = _ranks({**some_data()["texts"], "luck": [-0.4, 0.4]}, "texts")
    assert "no correlation of ARS with the effects of heads is shown" in by_luck
    against = _ranks({**some_data()["texts"], "correlation": estimate(-0.5, -0.6, -0.4)}, "texts")
    assert "ARS correlates negatively with the effects of heads, beyond random orders" in against
    none = some_data()
    none["images"]["gain"] = [UNSURE, None]
    assert "is not shown to carry more" in _conclude(none)[0]


def test_tables_and_figures():
    shown = STUDY.show(object.__new__(Setup), [some_data()])
    assert shown.tables[""].columns == ("layer", *SETS.values())
    assert [row[0] for row in shown.tables["heads"].rows] == ["1.0", "0.0", "0.1"]
    notes = " ".join(note for table in shown.tables.values() for note in table.notes)
    assert "could not be read: 1 question." in notes
    assert "2 pairs of texts cannot be compared" in notes
    assert set(shown.figures) == {"", "texts", "region"}


def test_what_is_refused(model, profile, tmp_path):
    pairs = contrastive_pairs("validation", 1)

    def measured(n, benchmark_n=2):
        return run_study(
            STUDY, model, [scenes.load_scenes(n=benchmark_n)], tmp_path / str(n + benchmark_n),
            profile=profile, pairs=pairs, options={"n": n},
        )  # fmt: skip

    with pytest.raises(ValueError, match="n=1: expected at least 2; pass a larger number"):
        measured(1)
    with pytest.raises(
        ValueError, match="all questions are about one photograph: expected at least"
    ):
        measured(2, 1)
