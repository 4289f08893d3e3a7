"""Open questions about action scenes go through a run, its report and the judge's reader."""

from __future__ import annotations

from rvelens import HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import Decoding, evaluate, to_markdown
from rvelens.interventions.methods import make_method
from rvelens.judge.open_ended import load_items
from rvelens.model.hooked_lvlm import TINY


def test_a_run_is_reported_and_can_be_judged(tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    benchmark = load_benchmark("action-scenes-open", n=2)
    report = evaluate(
        model, [benchmark], [make_method("vanilla", model)], tmp_path,
        decoding=Decoding(max_new_tokens=3),
    )  # fmt: skip
    assert report["benchmarks"] == {}
    assert "Open-ended: score the answers with `rvelens judge`." in to_markdown(report)
    items = load_items(tmp_path)
    assert [(i.question, i.reference) for i in items] == [
        (i.text, i.reference) for i in benchmark.items
    ]
    assert {item.group for item in items} == {"object", "action"}
    assert all(item.answer for item in items)
