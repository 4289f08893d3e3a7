"""The study of views: numbers against counting, sentences, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_questions import few_draws
from tiny_models import build

from rvelens import HookedLVLM
from rvelens.benchmarks import scenes
from rvelens.benchmarks.action_scenes import make_questions, patch_mask
from rvelens.studies import Setup, find_study, views
from rvelens.studies.kit.run import run_study
from rvelens.studies.views import _conclude
from rvelens.views import VIEWS, view_images

STUDY = find_study("views")
N = 4


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_draws(monkeypatch, views)


def test_numbers_against_counting(model, tmp_path):
    _, _, data = run_study(STUDY, model, [scenes.load_scenes(n=N)], tmp_path, batch_size=4)
    assert data["questions"] == N
    auc = np.zeros((N, len(VIEWS)))
    mass = np.zeros((N, len(VIEWS)))
    for row, question in enumerate(make_questions("test", N)):
        for column, name in enumerate(VIEWS):
            (found,) = view_images(model, question.image, question.text, name)
            side = round(len(found) ** 0.5)
            region = patch_mask(question.regions["verb"], (side, side), (96, 96)).ravel()
            inside = [x for x, r in zip(found.tolist(), region, strict=True) if r]
            outside = [x for x, r in zip(found.tolist(), region, strict=True) if not r]
            wins = sum((i > o) + 0.5 * (i == o) for i in inside for o in outside)
            auc[row, column] = wins / len(inside) / len(outside)
            mass[row, column] = sum(inside) / float(found.sum()) / (len(inside) / len(found))
    for n in range(len(VIEWS)):
        assert data["auc"][n]["value"] == pytest.approx(auc[:, n].mean(), abs=1e-3)
        assert data["gain"][n]["value"] == pytest.approx((auc[:, n] - auc[:, 0]).mean(), abs=1e-3)
        assert data["enrichment"][n]["value"] == pytest.approx(mass[:, n].mean(), rel=1e-2)


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def some_data(photographs=1000):
    names = list(VIEWS)
    sure, unsure = estimate(0.7, 0.6, 0.8), estimate(0.51, 0.4, 0.6)
    return {
        "model": "m", "benchmark": "b", "questions": 5, "photographs": photographs, "left_out": 1,
        "views": dict.fromkeys(names, "about it"),
        "auc": [sure, unsure, sure, sure, None],
        "gain": [
            estimate(0, 0, 0), estimate(-0.2, -0.3, -0.1), estimate(0.1, 0.05, 0.2),
            estimate(0.0, -0.1, 0.1), None,
        ],
        "enrichment": [sure, unsure, sure, sure, None],
    }  # fmt: skip


def test_sentences_claim_what_intervals_confirm():
    says = " ".join(_conclude(some_data()))
    assert "Above chance: attention, relevancy, rollout, by region AUC." in says
    assert "gradient-attention finds the region worse than attention" in says
    assert "relevancy finds the region better than attention" in says
    assert "rollout is not shown to differ from attention" in says
    assert "logit-lens" not in says
    assert _conclude(some_data(photographs=3)) == ["3 photographs are too few to say anything."]


def test_the_table_and_the_figure_show_every_view():
    shown = STUDY.show(object.__new__(Setup), [some_data()])
    assert [row[0] for row in shown.tables[""].rows] == list(VIEWS)
    assert "could not be read: 1 question." in " ".join(shown.tables[""].notes)
    assert len(shown.figures[""].axes) == 3


def test_a_model_without_a_grid_is_refused_before_the_work(tmp_path):
    hf_model, processor = build("instructblip")
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    with pytest.raises(ValueError, match="have no position in the image: expected a model"):
        run_study(STUDY, model, [scenes.load_scenes(n=2)], tmp_path)
    assert torch.is_grad_enabled()
