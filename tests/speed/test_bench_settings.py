"""Settings side by side are timed on what they are said to be: the same questions and answers."""

from __future__ import annotations

import pytest
import torch

from rvelens import HookedLVLM
from rvelens.speed import settings
from rvelens.speed.shapes import Shape, build_random


@pytest.fixture(scope="module")
def hooked():
    return HookedLVLM(build_random(Shape(2, 64, 4, 128, 1, 64, torch.float32), "cpu"))


def test_both_ways_are_timed_and_answers_agree(hooked, monkeypatch):
    monkeypatch.setattr(settings, "N_QUESTIONS", 2)
    result = settings.settings_side_by_side(hooked, 2, "cpu")
    assert result["settings"] == len(settings.ALPHAS) * len(settings.BETAS) == 32
    assert result["questions"] == 2
    assert set(result["seconds"]) == {settings.PLAIN, settings.WHOLE, settings.SETTINGS}
    assert result["quartiles"][0] <= result["ratio"] <= result["quartiles"][1]
    assert result["same_answers"]


def test_other_answers_are_noticed(hooked, monkeypatch):
    monkeypatch.setattr(settings, "N_QUESTIONS", 1)
    alone = settings._alone
    monkeypatch.setattr(settings, "_alone", lambda *args: [*alone(*args)[:-1], "something else"])
    assert not settings.settings_side_by_side(hooked, 1, "cpu")["same_answers"]
