"""What is timed is the same scores in two ways, of forwards over the images of one batch."""

from __future__ import annotations

import pytest
import torch

from rvelens import HookedLVLM
from rvelens import speed as bench
from rvelens.speed import head_scores as scoring

MICRO = bench.Shape(3, 64, 8, 64, 1, 64, torch.float32, text_tokens=24)


@pytest.fixture(scope="module")
def hooked():
    return HookedLVLM(bench.build_random(MICRO, "cpu"))


def test_both_ways_find_the_same(hooked):
    result = scoring.scoring(hooked, 2, "cpu")
    assert result["pairs"] == scoring.N_PAIRS
    assert set(result["seconds"]) == {scoring.SEPARATE, scoring.SHARED}
    assert 0 < result["quartiles"][0] <= result["ratio"] <= result["quartiles"][1]
    assert result["largest_difference"] < 0.01 * result["largest_score"]


def test_score_heads_sees_each_image_once_and_two_forwards_twice(hooked):
    seen = []
    tower = hooked.hf_model.model.vision_tower
    handle = tower.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    model, pairs = HookedLVLM(hooked.hf_model, scoring.processor_of()), scoring._pairs()
    scoring._two_forwards(model, pairs)
    scoring.score_heads(model, pairs, prompt=scoring.SCORING_PROMPT)
    handle.remove()
    assert seen == [len(pairs)] * 3
