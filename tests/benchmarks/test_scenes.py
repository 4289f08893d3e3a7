"""Action scenes as a benchmark: the questions of the scenes, unchanged."""

from __future__ import annotations

from collections import Counter

import pytest

from rvelens.benchmarks import load_benchmark, rules
from rvelens.benchmarks.action_scenes import GROUPS, make_questions


def test_the_same_questions():
    benchmark = load_benchmark("action-scenes", n=8, split="validation", seed=3)
    for item, question in zip(benchmark.items, make_questions("validation", 8, 3), strict=True):
        assert (item.text, item.truth, item.group) == (
            question.text,
            question.answer,
            question.group,
        )
        assert item.load().tobytes() == question.image.tobytes()
        assert item.image == item.source == f"validation-{question.scene_seed}"
        assert item.files == ()
    assert Counter(item.group for item in benchmark.items) == dict.fromkeys(GROUPS, 2)
    assert len({item.id for item in benchmark.items}) == 8
    assert benchmark.rule is rules.strict
    assert benchmark.positives == ("yes",)


def test_the_default_is_the_test_split():
    benchmark = load_benchmark("action-scenes", n=2)
    assert [item.text for item in benchmark.items] == [q.text for q in make_questions("test", 2)]


@pytest.mark.parametrize("options", [{"split": "dev"}, {"n": 0}, {"seed": 1000}, {"seed": -1}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"action scenes with .*expected a split of train"):
        load_benchmark("action-scenes", **options)
