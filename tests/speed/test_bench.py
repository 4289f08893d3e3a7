"""The benchmark measures what it says: same tokens everywhere, and memory that does not square."""

from __future__ import annotations

import pytest
import torch

from rvelens import HookedLVLM
from rvelens import speed as bench
from rvelens.speed import generation
from rvelens.speed.memory import PeakBytes, capture_memory, check_room

MICRO = bench.Shape(3, 64, 8, 64, 1, 64, torch.float32, text_tokens=24)


def quiet(items, label):
    """Progress that shows nothing."""
    return items


# `compiled_bench_checks.py` counts graph breaks: jaxtyping's run-time checks cannot be compiled.
@pytest.fixture(autouse=True, scope="module")
def _nothing_is_compiled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "count_graph_breaks", lambda model, inputs: 0)
        yield


@pytest.fixture(scope="module")
def result():
    return bench.run_shape(MICRO, "micro", 2, 3, "cpu", quiet)


def test_every_setting_is_timed_and_the_bridge_boots(result):
    assert set(result["ratios"]) == {bench.PLAIN, bench.UNHOOKED, bench.RVE, bench.BRIDGE}
    assert result["missing"] == {}
    assert result["ratios"][bench.PLAIN] == 1.0
    assert all(ratio > 0 for ratio in result["ratios"].values())
    assert 2 * len(result["rve_layers"]) > result["layers"]
    assert result["prompt_tokens"] == 600


def test_counts_stand_beside_the_times(result):
    kernels = result["kernels"]
    assert list(kernels) == list(result["ratios"])
    assert kernels[bench.UNHOOKED] == kernels[bench.PLAIN] < kernels[bench.RVE]
    assert set(result["graph_breaks"]) == {bench.PLAIN, bench.UNHOOKED, bench.RVE}
    assert list(result["uncounted"]) == [bench.BRIDGE]
    assert set(result) == set(bench.BenchResult.__annotations__)


def test_graph_breaks_that_cannot_be_counted_are_left_out_with_the_reason(monkeypatch):
    def fails(model, inputs):
        raise RuntimeError("no such\nPython")

    monkeypatch.setattr(generation, "count_graph_breaks", fails)
    model = bench.build_random(MICRO, "cpu")
    inputs = generation.prompt_of(model, 24)
    setting = generation.BenchSetting(model, model.generate)
    counts = generation._counts({bench.PLAIN: setting}, inputs, quiet)
    assert counts["graph_breaks"] == {}
    assert counts["uncounted"] == {bench.PLAIN: "RuntimeError: no such Python"}


@pytest.mark.parametrize(
    ("device", "compiled", "backend"),
    [
        ("cpu", None, None),
        ("cpu", True, "inductor"),
        ("cuda", None, "inductor"),
        ("cuda", False, None),
    ],
)
def test_a_gpu_compiles_unless_told_otherwise_and_a_cpu_when_it_is_told(
    monkeypatch, device, compiled, backend
):
    given = []
    monkeypatch.setattr(generation, "run_shape", lambda *args: given.append(args[-1]) or {})
    bench.run_bench("llava-1.5-7b", device=device, compiled=compiled)
    assert getattr(given[0], "backend", None) == backend
    assert getattr(given[0], "_compile_all_devices", None) == (
        True if backend and device == "cpu" else None
    )


def test_a_capture_grows_with_the_keys_and_not_with_their_square(result):
    one, two = result["capture"]
    assert two["keys"] == 2 * one["keys"]
    assert one["kept"] == 3 * 8 * 576 * 4  # layers, heads, image tokens, float32
    assert two["kept"] == 2 * one["kept"]
    assert 0.5 * one["kept"] <= one["last"] <= 1.3 * one["kept"]
    assert two["last"] <= 2.2 * one["last"]
    assert two["all"] > 100 * two["last"]


def test_twins_share_their_weights_and_nothing_else():
    model = bench.build_random(MICRO, "cpu")
    twin = generation.twin(model)
    assert twin.get_decoder() is not model.get_decoder()
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    assert all(a is b for a, b in pairs)
    HookedLVLM(twin)
    assert model.get_decoder().config._attn_implementation == "sdpa"


def test_a_bridge_that_does_not_boot_is_shown_with_its_reason(monkeypatch):
    def no_bridge(model):
        raise ImportError("no module named\ntransformer_lens")

    monkeypatch.setattr(generation, "boot_bridge", no_bridge)
    result = bench.run_shape(MICRO, "micro", 1, 1, "cpu", quiet)
    assert result["missing"] == {bench.BRIDGE: "ImportError: no module named transformer_lens"}
    assert bench.BRIDGE not in result["ratios"]


def test_nothing_can_be_installed_while_a_bridge_boots():
    from transformer_lens.model_bridge.sources.transformers import helpers

    before = helpers._ensure_torchvision
    with generation.no_installs():
        assert helpers._ensure_torchvision() is False
    assert helpers._ensure_torchvision is before


def test_peak_counts_what_is_alive_at_once_and_no_views():
    weight = torch.zeros(100)
    with PeakBytes() as count:
        a = torch.ones(1000)
        b = a.view(10, 100) + weight.view(1, 100)
        del a
        c = b.sum(dim=0)
    assert count.peak == 8000
    assert count.live == 4400
    del b, c
    assert count.live == 0


def test_query_rows_is_restored(model, inputs):
    model.query_rows = "all"
    capture_memory(model, inputs)
    assert model.query_rows == "all"
    assert not model.list_hooks()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"shape_name": "huge"}, "shape 'huge': expected one of tiny, llava-1.5-7b"),
        ({"shape_name": "tiny", "runs": 0}, "runs=0: expected at least 1"),
        ({"shape_name": "tiny", "device": "tpu"}, "device 'tpu': expected 'cpu' or 'cuda'"),
        ({"shape_name": "tiny", "device": "cpu:0"}, "device 'cpu:0': expected 'cpu', 'cuda', or"),
    ],
)
def test_mistakes(arguments, says):
    with pytest.raises(ValueError, match=says):
        bench.run_bench(**arguments)


def test_too_little_memory_is_refused_before_anything_is_built():
    with pytest.raises(
        ValueError, match=r"about 999999 GiB are needed on cpu and \d+ GiB are free"
    ):
        check_room(999_999.0, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="without a GPU"):
            bench.run_bench("llava-1.5-7b", device="cuda")
