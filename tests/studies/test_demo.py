"""The demo's measurements: wording against intervals, the whole run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from rvelens import HookedLVLM
from rvelens.studies import demo as report
from rvelens.studies.demo.render import _claim
from rvelens.studies.demo.settings import layer_bands


def test_bands_are_contiguous_and_inside():
    for n in (2, 6, 9):
        assert all(b == list(range(b[0], b[-1] + 1)) and b[-1] < n for b in layer_bands(n))
        assert list(range(n)) in layer_bands(n)


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (0.01, 0.03, 0.05, "accuracy rises by 0.030"),
        (-0.05, -0.03, -0.01, "accuracy falls by 0.030"),
        (-0.01, 0.03, 0.05, "no change in accuracy that these questions confirm (+0.030)"),
        (0.0, 0.03, 0.05, "no change in accuracy that these questions confirm (+0.030)"),
    ],
)
def test_a_gain_is_claimed_only_where_its_interval_excludes_zero(low, value, high, said):
    assert _claim("accuracy", {"low": low, "value": value, "high": high}) == said


@pytest.fixture(scope="module")
def tiny() -> HookedLVLM:
    return HookedLVLM.from_pretrained("rvelens/tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def small_grid():
    """One share and one strength to tune over: the same path in a ninth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rvelens.studies.demo.settings.ALPHAS", (0.1,))
        patch.setattr("rvelens.studies.demo.settings.BETAS", (1.0,))
        yield


@pytest.fixture(scope="module")
def measured(tiny, small_grid):
    return report.run_demo(tiny, n_test=40, n_validation=16, n_pairs=8, batch_size=20)


def test_a_small_run_end_to_end(tiny, measured, tmp_path):
    data = json.loads(json.dumps(measured.to_json()))
    assert data["n_test"] == 40
    assert set(data["groups"]["rows"]) == {"PC-yes", "PC-no", "CP-yes", "CP-no", "PC", "CP", "all"}
    rows = data["steering"]["rows"]
    assert list(rows) == [
        "plain",
        "RVE, paper's defaults",
        "RVE, tuned",
        "mask from all heads (control)",
        "mask from all heads, tuned (control)",
        "oracle: true region, tuned",
    ]
    assert all("accuracy_gain" in row for name, row in rows.items() if name != "plain")
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(report.render_demo(measured))
    shown, markdown = console.export_text(), report.demo_to_markdown(measured)
    for text in (shown, markdown):
        assert "Injected fault: image scores scaled by 0.35" in text
        assert "CP-no" in text
    narrow = Console(record=True, width=80, file=io.StringIO())
    examples = report.examples_table(report.examples(tiny, measured, 4))
    narrow.print(report.render_demo(measured), examples)
    lines = narrow.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("group", "accuracy", "yes-ratio", "setting", "RVE, tuned:", "oracle:", "question"):
        assert any(line.startswith(name) or f" {name}" in line for line in lines), name
    report.draw_examples(tiny, measured, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"ars.png", "overlay.png"}
    assert len(report.examples(tiny, measured, 4)) == 4
    assert not tiny.list_hooks()


def test_the_same_seed_gives_the_same_numbers(tiny, measured):
    again = report.run_demo(tiny, n_test=40, n_validation=16, n_pairs=8, batch_size=20)
    assert again.to_json() == measured.to_json()


def test_margins_agree_with_asking(tiny):
    from rvelens.benchmarks.action_scenes import make_questions
    from rvelens.studies.demo.questions import prefill_questions

    questions = make_questions("test", 12, 3)
    margins = prefill_questions(tiny, questions, 5, iter).margins()
    answers = tiny.ask([q.image for q in questions], [q.text for q in questions])
    assert [m > 0 for m in margins] == [a == "Yes" for a in answers]
    assert np.isfinite(margins).all()
