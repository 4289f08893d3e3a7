"""Action scenes as a benchmark: the questions of the scenes, unchanged."""

from __future__ import annotations

from collections import Counter

import pytest

from rvelens.benchmarks import load_benchmark, rules
from rvelens.benchmarks.action_scenes import GROUPS, draw_scene, make_question, make_questions


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_are_known_before_their_pictures(split):
    """Texts and answers come of the plan alone, and pictures and regions of drawing it."""
    benchmark = load_benchmark("action-scenes", n=40, split=split, seed=1)
    for item, question in zip(benchmark.items, make_questions(split, 40, 1), strict=True):
        assert (item.text, item.truth, item.group) == (
            question.text,
            question.answer,
            question.group,
        )
        assert item.regions() == question.regions
        assert item.load().tobytes() == question.image.tobytes()


def test_a_sample_does_not_wait_for_a_thousand_pictures(monkeypatch):
    drawn = []
    monkeypatch.setattr("rvelens.benchmarks.scenes._scene", lambda *key: drawn.append(key))
    load_benchmark("action-scenes", limit=3)
    load_benchmark("action-scenes-open", limit=3)
    assert not drawn


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


def test_open_questions_have_one_right_word_each():
    """About the scenes of the yes/no questions, in the words that the embedded model was trained on."""
    closed = load_benchmark("action-scenes", n=12, split="validation", seed=3)
    opened = load_benchmark("action-scenes-open", n=12, split="validation", seed=3)
    assert len(opened.items) == opened.published == 24
    assert [item.source for item in opened.items[::2]] == [item.source for item in closed.items]
    for thing, action in zip(opened.items[::2], opened.items[1::2], strict=True):
        assert thing.image == action.image == thing.source == action.source
        scene = draw_scene(int(thing.source.split("-")[1]), "validation")
        person = scene.people[scene.subject]
        assert (thing.group, thing.reference) == ("object", person.object)
        assert (action.group, action.reference) == ("action", person.verb)
        assert thing.text == f"What does a {person.kind} {person.verb} in the image?"
        article = "an" if person.object == "apple" else "a"
        assert action.text == f"What does a {person.kind} do with {article} {person.object}?"
        assert make_question(scene, action.reference).answer
        assert thing.load().tobytes() == action.load().tobytes() == scene.image.tobytes()
    assert {item.truth for item in opened.items} == {None}
    assert len({item.id for item in opened.items}) == 24
    assert opened.rule is rules.judged
    assert opened.positives == ()
    assert load_benchmark("action-scenes-open", n=1).items[0].source.startswith("test-")


@pytest.mark.parametrize("name", ["action-scenes", "action-scenes-open"])
@pytest.mark.parametrize("options", [{"split": "dev"}, {"n": 0}, {"seed": 1000}, {"seed": -1}])
def test_bad_options(name, options):
    with pytest.raises(ValueError, match=r"action scenes with .*expected a split of train"):
        load_benchmark(name, **options)


@pytest.mark.parametrize("turns", [1, 4, 9])
def test_earlier_turns_are_true_and_tell_nothing_of_the_question(turns):
    single = load_benchmark("action-scenes", n=30, split="validation", seed=2)
    behind = load_benchmark("action-scenes-turns", n=30, split="validation", seed=2, turns=turns)
    for item, plain in zip(behind.items, single.items, strict=True):
        said, _, text = item.text.rpartition("USER: ")
        assert text == plain.text
        assert (item.id, item.truth, item.group) == (plain.id, plain.truth, plain.group)
        scene = draw_scene(int(item.id.rpartition("-")[2]), "validation")
        asked, other = scene.people[scene.subject], scene.people[1 - scene.subject]
        found = [turn.split(" ASSISTANT: ") for turn in said.strip().split(" USER: ")]
        found[-1][1] = found[-1][1].removesuffix(" USER:")
        assert len(found) == turns
        for question, answer in found:
            assert f" {other.kind} " in question
            assert f" {asked.kind} " not in question
            if question.startswith("Does"):
                assert (answer == "Yes") == (f" {other.verb} " in question)
            else:
                assert answer == (other.verb if " do in " in question else other.object)


def test_no_turns_are_refused():
    with pytest.raises(ValueError, match="turns=0: expected at least 1"):
        load_benchmark("action-scenes-turns", n=2, turns=0)
