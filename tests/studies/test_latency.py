"""Times of methods: the same length for all, ratios within rounds, what is kept, sentences."""

from __future__ import annotations

import statistics

import pytest
import torch
from family_cases import hooked, profile_of
from tiny_models import IMAGES, QUESTIONS

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import Benchmark, Item, load_benchmark, rules
from rvelens.evaluate import Decoding, answer
from rvelens.interventions.methods import METHODS, make_method
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import Setup, find_study, latency
from rvelens.studies.kit.parts import Parts
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study

STUDY = find_study("latency")
ITEMS = tuple(
    Item(str(n), str(n), str(n), QUESTIONS[n], True, None, "", lambda n=n: IMAGES[n])
    for n in range(3)
)
BENCHMARK = Benchmark("few", ITEMS, (), rules.strict, {})
SHORT = {"new_tokens": 3, "n_questions": 1}


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture
def two_rounds(monkeypatch):
    """Too few for figures to be quoted, enough for their shapes."""
    monkeypatch.setattr(latency, "MIN_RUNS", 2)
    return {**SHORT, "runs": 2}


def go(model, out, names, profile=None, benchmark=BENCHMARK, **options):
    methods = [make_method(name, model, profile) for name in names]
    return run_study(
        STUDY, model, [benchmark], out, profile=profile, methods=methods,
        options=STUDY.settled(options),
    )  # fmt: skip


def steps(model, do):
    """Forwards of the decoder during which a token was added, by the size of their query."""
    seen = []
    handle = model.hf_model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    do()
    handle.remove()
    return seen.count(1)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("vcd", "icd")])
def test_every_answer_has_the_length_that_is_asked_for(tiny, name):
    """The embedded model ends after a word; timed, it must not."""
    model = tiny
    ranked = ARSProfile.load(TINY / "profile.safetensors")
    method = make_method(name, model, ranked)
    (item,) = load_benchmark("action-scenes", n=1).items

    def ask(n, **more):
        decoding = Decoding(max_new_tokens=n)
        return lambda: answer(model, method, [item.load()], [item.text], ["a"], decoding, **more)

    short = steps(model, ask(1, min_new_tokens=1))
    assert steps(model, ask(7)) - short < 3
    assert steps(model, ask(7, min_new_tokens=7)) - short == 6
    assert answer(model, method, [item.load()], [item.text], ["a"])[0][1] == pytest.approx(
        ask(7, min_new_tokens=7)()[0][1], abs=1e-4
    )


@pytest.mark.parametrize("name", ["vcd", "icd"])
def test_a_contrast_runs_both_branches_to_that_length(tiny, name, tmp_path):
    model = tiny
    (item,) = load_benchmark("action-scenes", n=1).items
    setup = Setup(model, None, (BENCHMARK,), (), (), Decoding(), {}, Parts(tmp_path))
    asked = [(item.load(), item.text, item.image)]
    ask = latency._of_method(setup, make_method(name, model), asked)
    assert steps(model, lambda: ask(7)) - steps(model, lambda: ask(1)) == 12


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_5_vl", "llava_next"])
def test_any_family(name, tmp_path, two_rounds):
    model = hooked(name)
    names = ["vanilla", "rve", "vcd"]
    _, _, data = go(model, tmp_path, names, profile_of(model), **two_rounds)
    assert list(data["whole"]) == list(data["first"]) == ["transformers", *names]
    assert {len(times) for times in data["whole"].values()} == {2}
    assert (data["device"], data["threads"], data["dtype"]) == ("cpu", 1, "float32")
    assert data["peak_bytes"] is None
    assert not model.list_hooks()
    assert model.hf_model.get_decoder().config._attn_implementation == "sdpa"


def test_what_transformers_alone_generates_is_the_same(model):
    copy = latency.plain_copy(model)
    assert copy is not model.hf_model
    assert copy.get_decoder().config._attn_implementation == "sdpa"
    said = []
    for one in (copy, model.hf_model):
        inputs = model.prepare(IMAGES[0], QUESTIONS[0])
        said.append(one.generate(**inputs, do_sample=False, max_new_tokens=4))
    assert torch.equal(*said)
    weights = zip(copy.parameters(), model.hf_model.parameters(), strict=True)
    assert all(a is b for a, b in weights)


def test_ratios_are_within_rounds():
    times = {"vanilla": [1.0, 2.0, 4.0], "rve": [1.1, 2.4, 4.0]}
    ratios = latency.over_vanilla(times)
    assert ratios["rve"] == pytest.approx([1.1, 1.2, 1.0])
    assert latency.middle(ratios["rve"]) == pytest.approx({"value": 1.1, "low": 1.05, "high": 1.15})
    data = {"new_tokens": 5, "first": times, "whole": {"rve": [3.1, 6.4, 8.0]}}
    assert latency.further(data)["rve"] == pytest.approx([0.5, 1.0, 1.0])


def test_a_run_that_is_done_is_kept_and_one_that_is_not_begins_again(model, tmp_path, monkeypatch):
    calls = []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return answer(*args, **kwargs)

    monkeypatch.setattr(latency, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        go(model, tmp_path, ["vanilla"], **SHORT)
    data = go(model, tmp_path, ["vanilla"], **SHORT)[2]
    assert len(calls) == 5 + 2 * 8  # a round of warming up, and seven
    assert go(model, tmp_path, ["vanilla"], **SHORT)[2] == data
    assert len(calls) == 5 + 2 * 8


def test_files_and_the_paper_beside_its_models(model, tmp_path, two_rounds):
    setup, made_with, data = go(model, tmp_path, ["vanilla", "vcd", "icd"], **two_rounds)
    times, paper = latency._times(data), latency._paper(data, latency.over_vanilla(data["whole"]))
    assert times.notes[0].startswith(
        "On cpu, threads: 1, float32. Questions asked one at a time: 1, of"
    )
    assert paper.notes[0] == "[1] 'Double latency'; the model is not named."
    assert "none of the paper's models: nothing is put beside" in paper.notes[1]
    assert [row[3] for row in paper.rows] == [None, None]
    data = {
        **data,
        "model": "liuhaotian/llava-v1.5-7b",
        "peak_bytes": dict.fromkeys(data["whole"], 2**21),
    }
    shown = latency._show(setup, [data])
    table = shown.tables["paper"]
    ratio = statistics.median(latency.over_vanilla(data["whole"])["vcd"])
    assert table.rows[0][3]["value"] == pytest.approx(ratio, abs=1e-6)
    assert "Brackets are quartiles over rounds." in table.notes
    assert shown.tables[""].columns[-1] == "peak MiB above weights"
    assert shown.tables[""].rows[0][-1] == 2.0
    files = write_study(tmp_path, STUDY, [made_with], [data], shown)
    assert {"latency.png", "latency.svg", "latency.csv", "latency-paper.csv"} <= {
        f.name for f in files
    }


@pytest.mark.parametrize(
    "options", [{"runs": 6}, {"new_tokens": 1}, {"n_questions": 0}], ids=lambda x: next(iter(x))
)
def test_options_out_of_range(model, tmp_path, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}.*: expected at least 7 rounds, 2 tokens"):
        go(model, tmp_path, ["vanilla"], **options)


def test_vanilla_is_needed_and_images_are_read_first(model, tmp_path):
    with pytest.raises(ValueError, match=r"without the method vanilla: .*add it to methods"):
        go(model, tmp_path / "a", ["vcd"])

    def torn():
        raise ValueError("no image")

    lost = BENCHMARK.keep([Item("0", "0", "0", "does it ?", True, None, "", torn)])
    with pytest.raises(ValueError, match="no image"):
        go(model, tmp_path / "b", ["vanilla"], benchmark=lost)


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        ([2.0] * 7, "vcd is slower in 7 of 7 rounds (2.00 times vanilla, quartiles 2.00 to 2.00)."),
        ([0.9] * 7, "vcd is faster in 7 of 7 rounds (0.90 times vanilla"),
        ([2.0] * 6 + [0.9], "vcd is slower in 6 of 7 rounds, which confirms no difference (2.00"),
        ([2.0] * 13 + [0.9], "vcd is slower in 13 of 14 rounds"),
    ],
)
def test_a_difference_is_claimed_where_rounds_on_one_side_are_no_chance(ratios, says):
    (said,) = latency._conclude({"vanilla": [1.0] * len(ratios), "vcd": ratios})
    assert said.startswith(says)
