"""A study's folder: one run at a time, what was torn or spoilt, and what a mistake leaves behind."""

from __future__ import annotations

import pytest
from filelock import FileLock
from small import measured
from study_cases import questions

from rvelens.studies.kit.parts import Parts

OPTIONS = {"alphas": [0.1], "betas": [1.0], "ks": [5], "max_entropies": [0.5]}


def test_a_mistake_does_not_take_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"alpha=0\.0: expected a share"):
        measured("sweep", tmp_path, n=2, **OPTIONS | {"alphas": [0]})
    measured("sweep", tmp_path, n=2, **OPTIONS)
    with pytest.raises(ValueError, match=r"options.alphas was \[0.1\] and is \[0.2\]"):
        measured("sweep", tmp_path, n=2, **OPTIONS | {"alphas": [0.2]})


def test_two_runs_in_one_folder(tmp_path):
    lock = tmp_path / "parts" / "sweep" / "rvelens--tiny.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(ValueError, match="is being written by another run"):
        measured("sweep", tmp_path, n=2, **OPTIONS)
    measured("sweep", tmp_path, n=2, **OPTIONS)


@pytest.mark.parametrize("line", ["xx", "[1, 2]", "null", '{"q0": 1'])
def test_a_spoilt_line_is_named(line, tmp_path):
    parts = Parts.open(tmp_path, {})
    items = questions(2).items
    parts.by_item("some", [items], lambda batch: [1, 2])
    path = tmp_path / "some.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"some.jsonl line 2 is not a part of a study: expected"):
        parts.by_item("some", [items], lambda batch: [1, 2])


def test_what_was_torn_is_computed_again_and_a_spoilt_part_is_named(tmp_path):
    parts = Parts.open(tmp_path, {})
    batches = [[item] for item in questions(2).items]
    whole = parts.by_item("some", batches, lambda batch: [batch[0].id])
    path = tmp_path / "some.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-3])
    assert parts.by_item("some", batches, lambda batch: [batch[0].id]) == whole
    assert path.read_bytes() == before
    parts.keep("one", lambda: {"a": 1})
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(ValueError, match=r"one.json is not a part of a"):
        parts.keep("one", dict)
