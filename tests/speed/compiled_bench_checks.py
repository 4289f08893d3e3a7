"""Graph breaks are counted, and compiled generation is timed.

`test_compiled_bench.py` runs this file in a process of its own: jaxtyping's run-time checks, which the
other tests run under, cannot be compiled.
"""

from __future__ import annotations

import pytest
import torch

from rvelens import HookedLVLM
from rvelens import speed as bench
from rvelens.speed.shapes import prompt_of

# torch warns of its own internals as it traces.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
MICRO = bench.Shape(3, 64, 8, 64, 1, 64, torch.float32, text_tokens=24)
COMPILED = [bench.PLAIN_COMPILED, bench.RVE_COMPILED]


def quiet(items, label):
    """Progress that shows nothing."""
    return items


@pytest.fixture(scope="module")
def result():
    config = bench.compile_config_of("cpu", "eager")
    return bench.run_shape(MICRO, "micro", 2, 4, "cpu", quiet, config)


def test_no_graph_breaks(result):
    assert result["graph_breaks"] == {bench.PLAIN: 0, bench.UNHOOKED: 0, bench.RVE: 0}
    assert list(result["uncounted"]) == [bench.BRIDGE]


def test_compiled_generation_is_timed_against_the_plain_model_in_the_same_mode(result):
    eager = [bench.PLAIN, bench.UNHOOKED, bench.RVE, bench.BRIDGE]
    assert list(result["ratios"]) == [*eager, *COMPILED]
    assert result["ratios"][bench.PLAIN_COMPILED] == result["ratios"][bench.PLAIN] == 1.0
    assert result["ratios"][bench.RVE_COMPILED] > 0
    assert list(result["kernels"]) == eager
    assert result["missing"] == {}


def test_what_is_timed_is_compiled_before_and_not_again():
    torch._dynamo.reset()
    bench.run_shape(MICRO, "micro", 3, 4, "cpu", quiet, bench.compile_config_of("cpu", "eager"))
    # One graph of the plain model and one under RVE since the latest count, which forgets others.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2 + 1


def test_what_cannot_be_compiled_is_missing_with_the_reason():
    config = bench.compile_config_of("cpu", "no-such-backend")
    result = bench.run_shape(MICRO, "micro", 1, 2, "cpu", quiet, config)
    assert list(result["missing"]) == COMPILED
    assert all("no-such-backend" in reason for reason in result["missing"].values())
    assert set(result["ratios"]) == {bench.PLAIN, bench.UNHOOKED, bench.RVE, bench.BRIDGE}


def test_a_break_is_counted():
    model = HookedLVLM(bench.build_random(MICRO, "cpu"))
    inputs = prompt_of(model.hf_model, MICRO.text_tokens)

    def waits(scores, hook):
        float(scores.max())

    with model.hooks([("blocks.1.attn.hook_attn_scores", waits)]):
        assert bench.count_graph_breaks(model.hf_model, inputs) >= 1
    assert bench.count_graph_breaks(model.hf_model, inputs) == 0


def test_nothing_compiled_is_not_taken_for_no_breaks():
    model = bench.build_random(MICRO, "cpu")
    with torch.compiler.set_stance("force_eager"), pytest.raises(RuntimeError, match="nothing"):
        bench.count_graph_breaks(model, prompt_of(model, MICRO.text_tokens))
