"""Decisions: at once, one line at a time, again and again."""

from __future__ import annotations

import json
import threading

import pytest

from rvelens.pairs import review

QUESTION = "Does a man hold a bat in the image ?"


def row(n, **rest):
    contrastive = QUESTION.replace("hold", "kick")
    return {
        "id": f"q{n}",
        "image": "1.png",
        "question": QUESTION,
        "contrastive": contrastive,
        **rest,
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row(n, note="é")) + "\n" for n in range(4)))
    return path


def test_a_decision_changes_its_line_alone(path):
    before = path.read_bytes().split(b"\n")
    decided = review.decide(path, "q2", "accept")
    after = path.read_bytes().split(b"\n")
    assert json.loads(after[2]) == decided == row(2, note="é", decision="accepted")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "pairs.jsonl",
        "pairs.jsonl.lock",
    ]


def test_what_waits(path):
    review.decide(path, "q0", "accept")
    review.decide(path, "q3", "reject")
    rows = review.read_reviewed(path)
    assert [r["decision"] for r in rows] == ["accepted", None, None, "rejected"]
    assert [r["id"] for r in review.pending(rows)] == ["q1", "q2"]


def test_an_edit_keeps_what_was_proposed_first(path):
    for verb in ("see", "bite"):
        review.decide(path, "q1", "edit", QUESTION.replace("hold", verb))
    decided = review.read_reviewed(path)[1]
    assert decided["contrastive"] == QUESTION.replace("hold", "bite")
    assert decided["proposed"] == QUESTION.replace("hold", "kick")
    assert decided["decision"] == "edited"
    review.decide(path, "q1", "reject")
    assert review.read_reviewed(path)[1]["decision"] == "rejected"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("q1", "maybe"), "decision 'maybe': expected one of accept, edit, reject"),
        (("q1", "edit"), "decision 'edit' without a text: expected"),
        (("q1", "accept", QUESTION), "decision 'accept' with a text: expected"),
        (("q9", "accept"), "has 0 pairs of id 'q9': expected exactly one"),
        (("q1", "edit", QUESTION), "expected another verb"),
        (("q1", "edit", QUESTION.replace("hold", "sit on")), "expected texts that"),
        (("q1", "edit", ""), "expected texts that"),
    ],
)
def test_what_cannot_be_decided_changes_nothing(path, arguments, says):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=says):
        review.decide(path, *arguments)
    assert path.read_bytes() == before


def test_an_id_that_is_there_twice(path):
    path.write_text(path.read_text() + json.dumps(row(1)) + "\n")
    with pytest.raises(ValueError, match="has 2 pairs of id 'q1'"):
        review.decide(path, "q1", "accept")


def test_published_rows_and_windows_lines(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"question_id": f"a{n}", "image": "1.png", "question": QUESTION, "answer": "see"}
        for n in "12"
    ]
    path.write_bytes(b"\r\n".join(json.dumps(r).encode() for r in rows))
    review.decide(path, "a1", "accept")
    first, second = path.read_bytes().split(b"\r\n")
    assert json.loads(first)["decision"] == "accepted"
    assert json.loads(first)["contrastive"] == QUESTION.replace("hold", "see")
    assert json.loads(second) == rows[1]


def test_a_line_stays_on_its_line_whatever_is_in_it(path):
    text = json.dumps(row(9, note="\u2028 \x85 \x0b"), ensure_ascii=False)
    path.write_text(path.read_text() + text + "\n", encoding="utf-8")
    review.decide(path, "q9", "accept")
    assert len(review.read_reviewed(path)) == 5
    assert review.read_reviewed(path)[4]["note"] == "\u2028 \x85 \x0b"


def test_two_at_once_lose_no_decision(path):
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(20)))
    threads = [
        threading.Thread(target=lambda n=n: review.decide(path, f"q{n}", "accept"))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert review.pending(review.read_reviewed(path)) == []


def test_where_the_verbs_are():
    question, contrastive = review.marks(row(0))
    assert QUESTION[slice(*question)] == "hold"
    assert row(0)["contrastive"][slice(*contrastive)] == "kick"
    assert review.marks(row(0) | {"contrastive": "Is it?"}) is None
