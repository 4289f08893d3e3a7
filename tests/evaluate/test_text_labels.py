"""Labels that are texts: accuracy, groups and comparisons, against literal counts."""

from __future__ import annotations

import pandas as pd
import pytest
from PIL import Image

from rvelens.benchmarks import load_questions
from rvelens.evaluate import Answer, evaluate, score, to_markdown
from rvelens.evaluate.render import tables
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY, HookedLVLM

LABELS = ["red", "blue", "red", "green", "blue", "red"]
SAID = {
    "plain": ["red", "It is red.", "blue", "green", "none", "red"],
    "edited": ["red", "blue", "red", "green or red", "none", "blue"],
}


@pytest.fixture
def frame():
    pictures = [Image.new("RGB", (16, 16), (n, 0, 0)) for n in range(6)]
    groups = ["x", "x", "y", "y", "y", "y"]
    return pd.DataFrame({"image": pictures, "question": "?", "label": LABELS, "group": groups})


def test_counts_are_literal(frame):
    benchmark = load_questions(frame, rule="choice")
    ids = [item.id for item in benchmark.items]
    answers = {
        name: {i: Answer(i, text) for i, text in zip(ids, said, strict=True)}
        for name, said in SAID.items()
    }
    found = score(benchmark, answers)
    assert list(found["rules"]) == ["official"]
    figures = found["rules"]["official"]["methods"]
    right = {"plain": [1, 0, 0, 1, 0, 1], "edited": [1, 1, 1, 0, 0, 0]}
    for name, each in right.items():
        assert figures[name]["accuracy"]["value"] == pytest.approx(sum(each) / 6)
        by_group = figures[name]["by_group"]
        assert by_group["x"]["accuracy"] == sum(each[:2]) / 2
        assert by_group["y"]["accuracy"] == sum(each[2:]) / 4
        for undefined in ("f1", "yes_ratio", "recall", "auc", "balanced_accuracy"):
            assert figures[name][undefined] is None
    assert (figures["plain"]["unparsed"], figures["edited"]["unparsed"]) == (1, 2)
    (pair,) = found["rules"]["official"]["pairs"]
    assert (pair["gained"], pair["lost"]) == (2, 2)
    assert pair["change"]["accuracy"]["value"] == 0
    assert pair["change"]["yes_ratio"] is None


def test_evaluate_takes_a_frame(frame, tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    methods = [make_method("vanilla", model), make_method("pai", model)]
    run = {"methods": methods, "out": tmp_path / "run", "batch_size": 6}
    report = evaluate(model, questions=frame, **run)
    assert report is not None
    titles = [table.title for table in tables(report)]
    assert titles == [
        "questions, 6 questions, choice rule",
        "questions, choice rule, accuracy by group",
        "questions, against vanilla on the same questions, choice rule",
    ]
    assert "| method | accuracy | unparsed |" in to_markdown(report)
    again = evaluate(model, questions=frame, **run)
    assert again == report
    with pytest.raises(ValueError, match=r"benchmark\.files\.questions was .* and is"):
        evaluate(model, questions=frame.assign(label=["red", "blue"] * 3), **run)
    with pytest.raises(ValueError, match="two benchmarks are named 'questions'"):
        evaluate(model, [load_questions(frame)], questions=frame, **run)
    with pytest.raises(ValueError, match="a run without out: expected a folder"):
        evaluate(model, questions=frame, methods=methods)
