"""Answers survive an interruption at any byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from run_folders import name_answers

from rvelens.benchmarks import Item
from rvelens.evaluate import Answer
from rvelens.evaluate.store import answers_file, append, load_answers, stored_answers
from rvelens.files.atomic import cut_torn_line

ITEMS = [
    Item(str(n), "a.jpg", "a.jpg", "Où ?\u2028", n == 0, None, "", lambda: Image.new("RGB", (1, 1)))
    for n in range(3)
]
ANSWERS = [Answer("0", "Ja\nnein\u2028é", 0.25), Answer("1", ""), Answer("2", error="torn")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 10_000))
def test_a_file_cut_at_any_byte_is_read_and_continued(tmp_path, cut):
    name_answers(tmp_path)
    path = answers_file(tmp_path, 0)
    path.unlink(missing_ok=True)
    append(path, ITEMS, ANSWERS)
    data = path.read_bytes()
    path.write_bytes(data[: cut % (len(data) + 1)])
    before = stored_answers(tmp_path, ITEMS)
    assert list(before.values()) == ANSWERS[: len(before)]
    cut_torn_line(path)
    assert stored_answers(tmp_path, ITEMS) == before
    append(path, ITEMS[len(before) :], ANSWERS[len(before) :])
    assert list(stored_answers(tmp_path, ITEMS).values()) == ANSWERS
    assert path.read_bytes() == data


def test_rows_tell_what_was_asked(tmp_path):
    append(answers_file(tmp_path, 0), ITEMS, ANSWERS)
    rows = [json.loads(x) for x in answers_file(tmp_path, 0).read_text().split("\n")[:-1]]
    assert rows[0] == {
        "id": "0", "image": "a.jpg", "question": "Où ?\u2028", "truth": "yes",
        "answer": "Ja\nnein\u2028é", "margin": 0.25,
    }  # fmt: skip
    assert rows[2]["error"] == "torn"


def test_files_of_several_processes_are_read_together(tmp_path):
    name_answers(tmp_path, "answers.jsonl", "answers-1.jsonl")
    append(answers_file(tmp_path, 0), ITEMS[:1], ANSWERS[:1])
    append(answers_file(tmp_path, 1), ITEMS[1:], ANSWERS[1:])
    assert sorted(stored_answers(tmp_path, ITEMS)) == ["0", "1", "2"]


def test_answers_of_a_run_by_name(tmp_path):
    run = tmp_path / "run"
    folder = run / "pope" / "rve"
    name_answers(folder, "answers-1.jsonl", "answers.jsonl")
    append(answers_file(folder, 1), ITEMS, ANSWERS)
    append(answers_file(folder, 0), ITEMS, [Answer(a.id, "later") for a in ANSWERS])
    with answers_file(folder, 1).open("a") as file:
        file.write('{"id": "9"')  # cut short
    found = load_answers(str(run), "pope", "rve")
    assert found == load_answers(run, "pope", "rve")
    assert list(found.values()) == [ANSWERS[0], ANSWERS[1], Answer("2", "later")]
    with pytest.raises(
        ValueError,
        match=r"no answers to pope under pai in .*name one that it holds, of pope/rve\.$",
    ):
        load_answers(run, "pope", "pai")
    with pytest.raises(ValueError, match=r"in .*nowhere: .*; check the path\.$"):
        load_answers(str(tmp_path / "nowhere"), "pope", "rve")
    with answers_file(folder, 1).open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"answers-1.jsonl line 4 is a malformed answer"):
        load_answers(run, "pope", "rve")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '{"id": "0"}',
        '{"id": [1], "question": "Où ?", "answer": "a"}',
        '{"id": "0", "question": "q", "answer": 5}',
        '{"id": "0", "question": "q", "answer": null}',
        '{"id": "0", "question": "q", "answer": "a", "margin": "x"}',
    ],
)
def test_a_whole_line_that_is_no_answer_is_named(tmp_path, line):
    name_answers(tmp_path)
    answers_file(tmp_path, 0).write_text(line + "\n")
    with pytest.raises(ValueError, match=r"answers\.jsonl line 1 is a malformed answer"):
        stored_answers(tmp_path, ITEMS)


def test_what_was_asked_otherwise_or_not_at_all_is_left_aside(tmp_path):
    name_answers(tmp_path)
    path = answers_file(tmp_path, 0)
    append(path, ITEMS, ANSWERS)
    other = Item("0", "a.jpg", "a.jpg", "Other?", True, None, "", ITEMS[0].load)
    assert sorted(stored_answers(tmp_path, [other, ITEMS[1]])) == ["1"]


def test_an_answer_takes_the_place_of_an_error(tmp_path):
    name_answers(tmp_path)
    path = answers_file(tmp_path, 0)
    for said in (Answer("2", error="torn"), Answer("2", "Yes"), Answer("2", "No")):
        append(path, ITEMS[2:], [said])
    assert stored_answers(tmp_path, ITEMS) == {"2": Answer("2", "Yes")}
