"""AMBER: truth comes from another file, whose type tells the answer and is never shown."""

from __future__ import annotations

import json

import pytest
from published import REAL, needs_real, write_array, write_image, write_lines

from rvelens.benchmarks import load_benchmark, rules

QUERY = "query_discriminative-relation.json"


def queries(*ids):
    text = "Is there direct contact between the person and grass?"
    return [{"id": n, "image": f"AMBER_{n}.jpg", "query": text} for n in ids]


@pytest.fixture
def folder(tmp_path):
    truths = [
        {"id": 1, "type": "generative", "truth": ["sky"], "hallu": []},
        {"id": 2, "type": "discriminative-relation", "truth": "yes"},
        {"id": 3, "type": "relation", "truth": "no"},
    ]
    write_array(tmp_path / "data" / "query" / QUERY, queries(2, 3))
    write_array(tmp_path / "data" / "annotations.json", truths)
    return tmp_path


def test_questions_with_truths_of_the_other_file(folder):
    write_image(folder / "image" / "AMBER_2.jpg")
    benchmark = load_benchmark("amber-relation", folder)
    assert [(item.id, item.truth) for item in benchmark.items] == [("2", True), ("3", False)]
    assert benchmark.items[0].load().size == (60, 40)
    assert benchmark.rule is rules.amber
    assert benchmark.positives == ("no", "yes")
    assert list(benchmark.files) == [f"data/query/{QUERY}", "data/annotations.json"]


def test_the_type_is_nowhere(folder):
    for item in load_benchmark("amber-relation", folder).items:
        shown = {name: value for name, value in vars(item).items() if name not in ("load", "files")}
        assert "relation" not in str(shown)
        assert item.group == ""


def test_queries_without_a_usable_truth(folder):
    write_array(folder / "data" / "query" / QUERY, queries(1, 2, 4))
    benchmark = load_benchmark("amber-relation", folder)
    assert [item.id for item in benchmark.items] == ["2"]
    first, second = benchmark.problems
    assert "row 1: 'truth' is ['sky']: expected yes or no" in first
    assert "row 3: id '4' is not in annotations.json: expected every id there" in second


def test_two_truths_of_one_question_are_none(folder):
    truths = [{"id": 2, "truth": "yes"}, {"id": 3, "truth": "no"}, {"id": 2, "truth": "no"}]
    write_array(folder / "data" / "annotations.json", truths)
    benchmark = load_benchmark("amber-relation", folder)
    assert [item.id for item in benchmark.items] == ["3"]
    assert "'truth' is 'both': expected yes or no" in benchmark.problems[0]


def test_the_annotations_nearest_to_the_queries(folder):
    write_lines(folder / "coco" / "annotations.json", [{"id": 2, "truth": "no"}])
    assert load_benchmark("amber-relation", folder).items[0].truth is True
    (folder / "data" / "annotations.json").unlink()
    (folder / "coco" / "annotations.json").unlink()
    with pytest.raises(ValueError, match=r"no annotations\.json below .*put it there"):
        load_benchmark("amber-relation", folder)


@needs_real
def test_the_published_files():
    benchmark = load_benchmark("amber-relation", REAL)
    truths = [item.truth for item in benchmark.items]
    assert (truths.count(True), truths.count(False)) == (975, 689)
    assert len(truths) == benchmark.published
    assert benchmark.problems == ()


def test_existence_questions_are_read_alike(folder):
    asked = [{"id": 3, "image": "AMBER_1.jpg", "query": "Is there a forest in this image?"}]
    write_array(folder / "data" / "query" / "query_discriminative-existence.json", asked)
    benchmark = load_benchmark("amber-existence", folder)
    (item,) = benchmark.items
    assert (item.id, item.source, item.text, item.truth) == (
        "3",
        "AMBER_1.jpg",
        "Is there a forest in this image?",
        False,
    )
    assert benchmark.name == "amber-existence"
    assert benchmark.rule is rules.amber
    assert benchmark.positives == ("no", "yes")
    (folder / "image").mkdir()
    with pytest.raises(ValueError, match=r"no query_discriminative-existence\.json below"):
        load_benchmark("amber-existence", folder / "image")


@needs_real
def test_the_published_truths_of_existence_questions(tmp_path):
    """Their queries are not here; their truths are, under as many ids as there are questions."""
    (path,) = REAL.rglob("annotations.json")
    kind = "discriminative-hallucination"
    ids = [row["id"] for row in json.loads(path.read_text()) if row["type"] == kind]
    write_array(tmp_path / "query_discriminative-existence.json", queries(*ids))
    (tmp_path / "annotations.json").write_bytes(path.read_bytes())
    benchmark = load_benchmark("amber-existence", tmp_path)
    assert len(benchmark.items) == benchmark.published == 4924
    assert benchmark.problems == ()
    assert not any(item.truth for item in benchmark.items)
