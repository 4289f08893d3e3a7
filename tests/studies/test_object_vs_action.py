"""Objects against actions: literal counting, pairing by photograph, resumption, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import Benchmark, Item, load_benchmark, rules
from rvelens.evaluate import Answer, Decoding
from rvelens.evaluate.answering import answer_items
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study
from rvelens.studies import object_vs_action as study
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import study_to_markdown, write_study

STUDY = find_study("object-vs-action")
DECODING = Decoding(max_new_tokens=2)


def item(n, source, group="", truth=None, reference=None):
    return Item(
        str(n), source, source, QUESTIONS[n % 3], truth, reference, group,
        lambda: IMAGES[int(source)],
    )  # fmt: skip


def closed(name, *items):
    return Benchmark(name, items, (), rules.strict, {})


PAIR = (
    closed("objects", item(0, "0", truth=True), item(1, "0", truth=False), item(2, "1", truth=False)),
    closed("actions", item(0, "0", truth=True), item(1, "2", truth=True)),
)  # fmt: skip


@given(st.text(max_size=12), st.sampled_from(["ball", "Ball", "eat"]))
def test_the_first_word_decides(noise, word):
    assert study.first_word(f"  {word}. {noise}") == word.casefold()
    assert study.first_word("!? _") == ""
    asked = item(0, "0", "object", reference=word)
    one = opened(asked)
    assert study.is_right(one, asked, Answer("0", f"'{word.upper()}', {noise}"))
    assert not study.is_right(one, asked, Answer("0", f"x{word}"))
    assert not study.is_right(one, asked, Answer("0", ""))
    assert not study.is_right(one, replace(asked, reference=" "), Answer("0", ""))


def test_yes_and_no_are_read_by_the_official_rule():
    asked = item(0, "0", truth=False)
    one = replace(closed("amber-relation", asked), rule=rules.amber)
    assert study.is_right(one, asked, Answer("0", "No"))
    assert not study.is_right(one, asked, Answer("0", "No."))
    assert not study.is_right(one, asked, Answer("0", "Yes"))


def test_numbers_against_counting():
    rng = np.random.default_rng(0)
    questions = [
        (str(rng.choice(study.KINDS)), PAIR[0], item(n, str(rng.integers(9)), truth=True))
        for n in range(80)
    ]
    right = {name: rng.random(80) < 0.6 for name in ("vanilla", "rve")}
    found = study._figures(questions, right)
    counted = {}
    for name, one in right.items():
        for kind in study.KINDS:
            hits = [bool(r) for r, (k, _, _) in zip(one, questions, strict=True) if k == kind]
            counted[name, kind] = sum(hits) / len(hits)
            assert found["methods"][name][kind]["value"] == pytest.approx(
                counted[name, kind], abs=1e-6
            )
        gap = found["methods"][name]["difference"]
        assert gap["value"] == pytest.approx(
            counted[name, "object"] - counted[name, "action"], abs=2e-6
        )
        assert gap["low"] < gap["value"] < gap["high"]
    (pair,) = found["pairs"]
    assert (pair["before"], pair["after"]) == ("vanilla", "rve")
    for kind in study.KINDS:
        change = counted["rve", kind] - counted["vanilla", kind]
        assert pair[kind]["value"] == pytest.approx(change, abs=2e-6)
    assert found["photographs"] == len({q[2].source for q in questions})


def test_photographs_are_drawn_whole():
    """Questions about one photograph that are alike add nothing to what is known."""
    many = [("object" if n % 2 else "action", PAIR[0], item(n, str(n // 2))) for n in range(60)]
    few = [(k, one, replace(i, source=str(int(i.source) // 10))) for k, one, i in many]
    right = {"vanilla": np.array([n // 20 != 1 for n in range(60)])}
    wide, narrow = (study._figures(q, right)["methods"]["vanilla"]["object"] for q in (few, many))
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def go(model, benchmarks, out, names=("vanilla",), **options):
    return run_study(
        STUDY, model, benchmarks, out, methods=[make_method(n, model) for n in names],
        decoding=DECODING, options=STUDY.settled(options),
    )  # fmt: skip


def opened(*items):
    return Benchmark("some-open", items, (), rules.judged, {}, positives=())


@pytest.mark.parametrize("name", ["instructblip", "qwen2_5_vl", "llava_next"])
def test_any_family(name, tmp_path):
    hf_model, processor = build(name)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    items = (item(n, str(n // 2), study.KINDS[n % 2], reference="ball") for n in range(4))
    _, _, found = go(model, [opened(*items)], tmp_path, ("vanilla", "devils"))
    assert found["photographs"] == 2
    assert list(found["methods"]) == ["vanilla", "devils"]


def test_two_benchmarks_of_the_same_photographs(model, tmp_path):
    _, _, found = go(model, PAIR, tmp_path)
    assert found["photographs"] == 1  # the only one with both
    assert found["kinds"]["object"] == {
        "benchmark": "objects", "questions": 2, "yes": 0.5, "words": 1,
    }  # fmt: skip
    assert found["kinds"]["action"]["questions"] == 1
    first, second = study._notes(found)
    assert first == (
        "object: 2 questions of objects, read by its official rule; yes is right for 50% of them."
    )
    assert second.startswith("action: 1 question of actions, read by its")


def test_refusals(model, tmp_path):
    def refused(benchmarks, match, **options):
        with pytest.raises(ValueError, match=match):
            go(model, benchmarks, tmp_path / match[:9], **options)

    wanted = "expected one benchmark with the groups object and action, or one about objects"
    refused(PAIR[:1], f"^objects: {wanted}.*name action-scenes-open, or amber-existence")
    refused([*PAIR, closed("more")], f"^objects, actions, more: {wanted}")
    apart = [PAIR[0], closed("actions", item(0, "2", truth=True))]
    refused(
        apart, "^0 photographs with object and action questions in objects and actions.*without --l"
    )
    refused(PAIR, "n_photographs=0: expected at least one", n_photographs=0)


def test_photographs_that_cannot_be_read_are_left_out_with_all_of_their_questions(model, tmp_path):
    def torn():
        raise ValueError("no image")

    items = [
        item(n, str(n // 2), study.KINDS[n % 2], reference=("ball", "hold")[n % 2])
        for n in range(4)
    ]
    items[2:] = [replace(one, load=torn) for one in items[2:]]
    _, _, found = go(model, [opened(*items)], tmp_path / "a")
    assert (found["left_out"], found["photographs"]) == (1, 1)
    notes = study._notes(found)
    assert "Left out, because nothing could be asked about them: 1 photograph." in notes
    with pytest.raises(
        ValueError, match=r"none of the photographs \(1\) could be asked about: expected readable"
    ):
        go(model, [opened(*items[2:])], tmp_path / "b")


def test_killed_and_taken_up_again_on_the_embedded_model(tmp_path, monkeypatch):
    model = HookedLVLM.from_pretrained(TINY)
    ranked = ARSProfile.load(TINY / "profile.safetensors")
    benchmark = load_benchmark("action-scenes-open", n=6)
    calls = []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return answer_items(*args, **kwargs)

    monkeypatch.setattr("rvelens.evaluate.run.answer_items", counted)

    def ask(out):
        return run_study(
            STUDY, model, [benchmark], out, profile=ranked, decoding=DECODING, batch_size=4,
            methods=[make_method(name, model, ranked) for name in STUDY.methods],
            options=STUDY.settled({"n_photographs": 4}),
        )  # fmt: skip

    stop = 2
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "a")
    stop = 0
    setup, made_with, found = ask(tmp_path / "a")
    assert len(calls) == 3  # of two batches, the first one once
    assert found == ask(tmp_path / "a")[2] == ask(tmp_path / "b")[2]
    assert len(calls) == 5
    assert found["photographs"] == 4
    assert found["kinds"]["object"]["benchmark"] == "action-scenes-open"
    shown = study._show(setup, [found])
    files = write_study(tmp_path, STUDY, [made_with], [found], shown)
    assert {f.suffix for f in files} == {".json", ".csv", ".png", ".svg", ".md"}
    text = study_to_markdown(STUDY, shown)
    assert (
        "4 questions of action-scenes-open, open-ended; an answer is right if its first word"
        in text
    )
    assert "no judge has read it" in text
    assert "paired questions about objects were not published" in text


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.1, 0.3, "object questions are answered right more often than action questions"),
        (-0.3, -0.1, "action questions are answered right more often than object questions"),
        (-0.1, 0.3, "no difference between the kinds that these photographs confirm"),
    ],
)
def test_sentences_claim_what_intervals_confirm(low, high, says):
    number = {"value": (low + high) / 2, "low": low, "high": high}
    data = {
        "photographs": 20,
        "kinds": {"object": {"yes": None}, "action": {"yes": 0.5}},
        "methods": {"vanilla": {"difference": number}},
        "pairs": [{"before": "vanilla", "after": "rve", "object": number, "action": number}],
    }
    first, second = study._conclude(data)
    assert says in first
    word = "rises" if low > 0 else "falls" if high < 0 else "no change that these photographs"
    assert second.count(word) == 2
    one_sided = {**data, "kinds": {"object": {"yes": 0.0}, "action": {"yes": 0.5}}}
    said = study._conclude(one_sided)
    assert [line for line in said if line not in (first, second)] == [said[1]]
    assert said[1].startswith("Every right answer to the object questions is no: a model that says")
    few = study._conclude({**data, "photographs": 19})
    assert few == ["19 photographs are too few to say anything."]
