"""From questions to a file of pairs, in one go or in several."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import IMAGES

from rvelens.benchmarks import load_benchmark
from rvelens.pairs import load_pairs
from rvelens.pairs.find import NotMadeError
from rvelens.pairs.generate import Made, by_lexicon
from rvelens.pairs.make import (
    make_pairs,
    questions_of_benchmark,
    questions_of_file,
    sample,
)
from rvelens.pairs.review import decide

TEXTS = [
    "Does a man hold a bat in the image ?",
    "Is there a cat on the table ?",
    "Is the woman looking at a dog?",
    "Does a child eat a cake?",
]


@pytest.fixture
def folder(tmp_path):
    IMAGES[2].save(tmp_path / "1.png")
    rows = [{"question_id": f"q{n}", "image": "1.png", "question": t} for n, t in enumerate(TEXTS)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def questions(folder):
    return questions_of_file(folder / "questions.jsonl", folder)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make(questions, path, generate=None, **options):
    return make_pairs(questions, generate or by_lexicon(), path, generator="lexicon", **options)


def test_each_pair_records_how_it_was_made(folder, questions):
    path = folder / "pairs.jsonl"
    report = make(questions, path)
    assert (report.kept, report.made) == (0, 3)
    (missing,) = report.not_made
    assert (missing.id, missing.question, missing.failed) == ("q1", TEXTS[1], False)
    assert "no verb" in missing.reason
    row = lines(path)[0]
    assert " ".join(row) == (
        "id image question contrastive verb candidate generator attempts verdicts decision"
    )
    assert row["verb"] == "hold"
    assert row["contrastive"] == TEXTS[0].replace("hold", row["candidate"])
    assert (row["generator"], row["attempts"], row["decision"]) == ("lexicon", 1, None)
    assert row["verdicts"] == [
        {"candidate": row["candidate"], "fits": True, "reason": "", "by": "table"}
    ]
    assert [pair.id for pair in load_pairs(path, folder)] == ["q0", "q2", "q3"]


def test_what_is_there_stays(folder, questions):
    path = folder / "pairs.jsonl"
    make(questions[:1], path)
    decide(path, "q0", "reject")
    before = path.read_bytes()
    report = make(questions, path, by_lexicon(seed=1))
    assert (report.kept, report.made) == (1, 2)
    assert path.read_bytes().startswith(before)
    again = path.read_bytes()
    assert make(questions, path).made == 0
    assert path.read_bytes() == again


def test_an_interruption_loses_nothing_that_was_written(folder, questions):
    class StoppedError(Exception):
        pass

    def stop(items):
        for n, item in enumerate(items):
            if n == 3:
                raise StoppedError
            yield item

    path, whole = folder / "pairs.jsonl", folder / "whole.jsonl"
    with pytest.raises(StoppedError):
        make(questions, path, progress=stop)
    assert len(lines(path)) == 2
    make(questions, path)
    make(questions, whole)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_was_cut_short_is_made_again(folder, questions, cut):
    path = folder / "pairs.jsonl"
    make(questions, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    report = make(questions, path)
    # Without its newline alone, the last line is whole.
    assert report.made == (0 if cut == 1 else 1)
    assert path.read_bytes() == whole


def test_an_empty_file_is_begun(folder, questions):
    path = folder / "pairs.jsonl"
    path.write_bytes(b"")
    assert make(questions, path).made == 3


def test_order_and_reasons_do_not_depend_on_concurrency(folder, questions):
    make(questions, folder / "1.jsonl")
    report = make(questions, folder / "4.jsonl", concurrency=4)
    assert (folder / "1.jsonl").read_bytes() == (folder / "4.jsonl").read_bytes()
    assert [one.id for one in report.not_made] == ["q1"]


def test_other_questions_under_the_same_ids_are_refused(folder, questions):
    path = folder / "pairs.jsonl"
    make(questions, path)
    shutil.copy(folder / "1.png", folder / "2.png")
    text = (folder / "questions.jsonl").read_text()
    for old, new in (("hold", "kick"), ('"1.png"', '"2.png"')):
        (folder / "questions.jsonl").write_text(text.replace(old, new))
        other = questions_of_file(folder / "questions.jsonl", folder)
        with pytest.raises(ValueError, match="has another question under id 'q0'"):
            make(other, path)


def test_a_missing_image_and_a_generators_reason_are_reported(folder, questions):
    def generate(question):
        raise NotMadeError("none")

    (folder / "1.png").unlink()
    report = make(questions[:1], folder / "pairs.jsonl")
    assert [one.reason for one in report.not_made] == ["its image does not exist"]
    IMAGES[0].save(folder / "1.png")
    report = make(questions[:1], folder / "pairs.jsonl", generate)
    assert [one.reason for one in report.not_made] == ["none"]
    assert not (folder / "pairs.jsonl").exists()


def test_a_mistake_in_a_generator_is_not_taken_for_a_reason(folder, questions):
    def generate(question) -> Made:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(questions, folder / "pairs.jsonl", generate)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"image": "1.png"}', "line 5: 'question' is None"),
        ('{"question": "x"}', "line 5: 'image' is None"),
        ("[]", "line 5: a list: expected a JSON object"),
        (
            '{"id": true, "image": "1.png", "text": "x"}',
            "line 5: 'id' is True: expected a string or",
        ),
        (
            '{"id": [1], "image": "1.png", "text": "x"}',
            r"line 5: 'id' is \[1\]: expected a string or",
        ),
        (
            '{"image": "../1.png", "text": "x"}',
            "'../1.png' does not name a file below .*: expected a relative path",
        ),
        ('{"image": "/etc/passwd", "text": "x"}', "'/etc/passwd' does not name a"),
        (
            '{"image": "1.png\\u0000", "text": "x"}',
            "does not name a file below .*: expected a relative path",
        ),
        ('{"image": "1.png", "text": "\\ud800"}', "line 5 is not JSON .half of a character"),
        ("[" * 100_000, "line 5 is not JSON .nested too deeply"),
        ('{"id": ' + "1" * 5000 + "}", "line 5 is not JSON .a number that is too long"),
        ('{"id": "q1", "image": "1.png", "text": "x"}', "line 5: id 'q1' occurs twice: expected"),
    ],
)
def test_a_malformed_question_is_named(folder, row, says):
    with (folder / "questions.jsonl").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match=says):
        questions_of_file(folder / "questions.jsonl", folder)


def test_a_question_may_have_the_number_zero(folder):
    (folder / "q.jsonl").write_text(json.dumps({"id": 0, "image": "1.png", "text": TEXTS[0]}))
    assert [one.id for one in questions_of_file(folder / "q.jsonl", folder)] == ["0"]


def test_spaces_around_a_question_stay(folder):
    text = f" \t{TEXTS[0]}\u3000\n"
    (folder / "q.jsonl").write_text(json.dumps({"id": 0, "image": "1.png", "text": text}))
    questions = questions_of_file(folder / "q.jsonl", folder)
    make(questions, folder / "pairs.jsonl")
    (row,) = lines(folder / "pairs.jsonl")
    assert row["question"] == text
    assert row["contrastive"] == text.replace("hold", row["candidate"])
    assert make(questions, folder / "pairs.jsonl").kept == 1


@pytest.mark.parametrize("content", [b"my notes\nkeep me", b"keep me", b'{"image": 1}\n{"id": "a'])
def test_a_file_of_something_else_is_left_as_it_is(folder, questions, content):
    path = folder / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.txt line \d is not JSON"):
        make(questions, path)
    assert path.read_bytes() == content


def test_a_file_that_is_whole_is_not_written_again(folder, questions, monkeypatch):
    path = folder / "pairs.jsonl"
    make(questions, path)
    before = path.stat()
    monkeypatch.setattr("pathlib.Path.write_bytes", None)
    make(questions, path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_runs_at_once_are_refused_before_anything_is_asked(folder, questions):
    path = folder / "pairs.jsonl"

    def generate(question):
        with pytest.raises(ValueError, match=r"pairs\.jsonl is being written by another run"):
            make(questions, path, lambda question: pytest.fail("asked"))
        return by_lexicon()(question)

    assert make(questions[:1], path, generate).made == 1


def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked(folder, questions):
    def generate(question) -> Made:
        pytest.fail("asked")

    with pytest.raises(ValueError, match=r"no folder .*none: expected one for pairs\.jsonl"):
        make(questions, folder / "none" / "pairs.jsonl", generate)
    with pytest.raises(ValueError, match="is not a file: expected a file name"):
        make(questions, folder, generate)
    with pytest.raises(OSError, match=r"pairs\.jsonl\.making\.lock"):
        make(questions, Path("/proc/pairs.jsonl"), generate)


def test_a_name_that_is_too_long_is_no_image(folder, questions):
    long = replace(questions[0], path=folder / ("x" * 5000))
    (one,) = make([long], folder / "pairs.jsonl").not_made
    assert one.reason == "its image does not exist"


def test_published_pairs_are_questions_too(folder):
    row = {
        "question_id": "ars1",
        "image": "1.png",
        "question": TEXTS[0],
        "label": "yes",
        "answer": "see",
    }
    (folder / "q.jsonl").write_text(json.dumps(row))
    (question,) = questions_of_file(folder / "q.jsonl", folder)
    assert (question.id, question.text, question.path) == ("ars1", TEXTS[0], folder / "1.png")


def test_a_sample_is_random_and_in_order(questions):
    many = questions * 10
    some = sample(many, 7, seed=1)
    assert some == sample(many, 7, seed=1) != sample(many, 7, seed=2)
    assert sample(questions, 2, seed=0) == sorted(sample(questions, 2, seed=0), key=lambda q: q.id)
    assert sample(questions, 9, seed=0) == questions


def test_a_benchmarks_questions(tmp_path):
    folder = tmp_path / "mmrel" / "vg" / "action"
    folder.mkdir(parents=True)
    IMAGES[0].save(folder / "58.png")
    row = {"question_id": "a", "image": "58.png", "text": TEXTS[0], "label": "yes"}
    (folder / "questions.json").write_text(json.dumps([row]))
    benchmark = load_benchmark("mmrel-real", tmp_path)
    (question,) = questions_of_benchmark(benchmark, tmp_path)
    assert question.image == "mmrel/vg/action/58.png"
    assert (question.id, question.text) == ("a", TEXTS[0])
    make([question], tmp_path / "pairs.jsonl")
    assert load_pairs(tmp_path / "pairs.jsonl", tmp_path)[0].image == tmp_path / question.image
    (tmp_path / "other").mkdir()
    with pytest.raises(
        ValueError, match=r"is not below .*other: expected the folder of all images"
    ):
        questions_of_benchmark(benchmark, tmp_path / "other")


def test_a_benchmark_that_draws_its_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="action-scenes draws its pictures"):
        questions_of_benchmark(load_benchmark("action-scenes", n=4), tmp_path)
