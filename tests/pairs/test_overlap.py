"""Test questions that pairs hold: left out where a file is given, else named in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rvelens import ARSProfile
from rvelens.benchmarks import Benchmark, Item, rules
from rvelens.pairs.overlap import overlap_notes, published_rankings, without_pairs

ROWS = [
    ("m1", "mmrel/vg/58.jpg", "Does a cat sit a chair in the image ?"),
    ("m2", "mmrel/vg/58.jpg", "Does a cat eat a chair in the image ?"),
    ("m3", "mmrel/vg/59.jpg", "Does a cat sit a chair in the image ?"),
    ("m4", "mmrel/vg/60.jpg", "Does a dog hold a ball in the image ?"),
    ("m5", "mmrel/vg/61.jpg", "Does a dog hold a bone in the image ?"),
]


def benchmark(name: str = "mmrel-real") -> Benchmark:
    items = tuple(
        Item(id, image, image, text, True, None, "", load=lambda: None)  # type: ignore[arg-type, return-value]
        for id, image, text in ROWS
    )
    return Benchmark(name, items, (), rules.mmrel, {}, {"all": (frozenset({"m1", "m3"}),)})


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        # By its texts: m1 and m2, and not m3, of another image.
        {
            "question_id": "ars000",
            "image": "58.jpg",
            "question": "does a cat sit a chair in the image?",
            "answer": "eat",
        },
        # By its id, as in the published rows that were seen.
        {
            "question_id": "m4",
            "image": "0.jpg",
            "question": "Does a dog hold a ball in the image ?",
            "answer": "eat",
        },
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_questions_that_pairs_hold_are_left_out(pairs):
    rest = without_pairs(benchmark(), pairs)
    assert [item.id for item in rest.items] == ["m3", "m5"]
    assert rest.left_out == 3
    assert rest.subsets["all"] == (frozenset({"m3"}),)
    assert rest.sample(1).left_out == 3


def test_a_benchmark_of_pairs_alone_is_refused(tmp_path):
    rows = [
        {"id": id, "image": image, "question": text, "contrastive": "no ?"}
        for id, image, text in ROWS
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"holds every question of mmrel-real: expected pairs of"):
        without_pairs(benchmark(), path)


def test_a_published_ranking_on_its_own_questions_is_noted(pairs):
    rankings = published_rankings()
    used = ARSProfile.published("llava-1.5-7b").digest()
    assert rankings == {used: "llava-1.5-7b"}
    (note,) = overlap_notes([benchmark(), benchmark("pope-random")], rankings, used)
    assert note.startswith(
        "mmrel-real: the published ranking of llava-1.5-7b was made from 150 pairs"
    )
    assert "--without-pairs" in note
    assert overlap_notes([benchmark()], rankings, "of another profile") == []
    assert overlap_notes([benchmark()], rankings, None) == []
    rest = without_pairs(benchmark(), pairs)
    (note,) = overlap_notes([rest], rankings, used)
    assert note == "mmrel-real: 3 questions that the given pairs hold are left out."
