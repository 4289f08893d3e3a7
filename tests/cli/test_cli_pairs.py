"""`rvelens pairs`: made from a file, looked at one by one, counted, and scanned."""

from __future__ import annotations

import io
import json

import pytest
from judge_server import completion, judge_server
from tiny_models import IMAGES

from rvelens.cli import main

TEXTS = ["Does a man hold a bat in the image ?", "Is it a cat?", "Does a child eat a [b]cake[/b]?"]


@pytest.fixture
def folder(tmp_path):
    IMAGES[0].save(tmp_path / "1.png")
    rows = [{"id": f"q{n}", "image": "1.png", "question": text} for n, text in enumerate(TEXTS)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("OPENAI_BASE_URL", "RVELENS_PAIRS_MODEL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, said=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        with pytest.raises(SystemExit) as end:
            main(["pairs", *map(str, arguments)])
        shown = capsys.readouterr()
        return end.value.code or 0, shown.out, shown.err

    return run


MAKE = ("make", "q.jsonl", "--images", ".", "-o", "pairs.jsonl")


def rows(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def test_make_reports_counts_and_reasons(run, folder):
    code, out, _ = run(*MAKE)
    assert code == 0
    assert "2 pairs made, 0 were there, in pairs.jsonl" in out
    assert "1 question without a pair:" in out
    assert "1 x no verb of the table" in out
    assert [row["id"] for row in rows(folder)] == ["q0", "q2"]
    code, out, _ = run(*MAKE, "--json")
    report = json.loads(out)
    assert (report["kept"], report["made"], report["pairs"]) == (2, 0, "pairs.jsonl")
    assert [one["id"] for one in report["not_made"]] == ["q1"]


def test_make_takes_a_sample(run, folder):
    assert run(*MAKE, "--limit", "1", "--seed", "1")[0] == 0
    assert len(rows(folder)) <= 1


def test_make_asks_a_model(run, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def answer(content, n):
        text = content[1]["text"]
        if TEXTS[0] not in text:
            return 400, {"error": {"message": "no"}}
        said = {"distinct_body_part": True, "fits_syntax": True, "reason": ""}
        if "changed_question" not in text:
            said = {"verb": "hold", "body_part": "", "new_verb": "bite", "new_body_part": ""}
        return 200, completion(json.dumps(said))

    with judge_server(answer) as server:
        llm = ("--generator", "llm", "--model", "m", "--base-url", server.base_url, "--cache", "c")
        code, out, _ = run(*MAKE, *llm)
    assert code == 1
    assert "2 x the request failed: BadRequestError" in out
    (row,) = rows(folder)
    assert row["generator"] == "llm:m"
    assert row["contrastive"] == TEXTS[0].replace("hold", "bite")
    assert row["verdicts"][1]["by"] == "m"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("make", "--images", ".", "-o", "p"),
            "no questions are given: expected a file or --benchmark",
        ),
        (
            (*MAKE, "--benchmark", "mmrel-real"),
            "both a file of questions and --benchmark are given: expected only one",
        ),
        ((*MAKE, "--generator", "llm"), "--generator llm without a model: expected --model NAME"),
        (
            (*MAKE, "--generator", "llm", "--model", " "),
            "llm without a model: expected --model NAME",
        ),
        (
            (*MAKE, "--generator", "llm", "--model", "m", "--temperature", "inf"),
            "temperature=inf: expected 0 or more",
        ),
        ((*MAKE, "--data", "."), "--data or --relation with a file of questions: expected them"),
        ((*MAKE, "--relation", "action"), "--data or --relation with a file of questions"),
        (
            ("make", "q.jsonl", "--images", ".", "-o", "./q.jsonl"),
            "--output q.jsonl is the file of questions: expected another",
        ),
        ((*MAKE, "--spacy", "en_none_xx"), "no spaCy pipeline 'en_none_xx' is installed"),
        (("make", "no.jsonl", "--images", ".", "-o", "p"), "no questions at no.jsonl"),
        (("make", "q.jsonl", "--images", "no", "-o", "p"), "no folder no: expected"),
        (("review", "no.jsonl"), "no pairs at no.jsonl"),
    ],
)
def test_mistakes_are_one_sentence(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_review(run, folder):
    run(*MAKE)
    code, out, _ = run("review", "pairs.jsonl", said="x\na\ns\n")
    assert code == 0
    assert "Does a man [hold] a bat in the image ?" in out
    assert f"Does a man [{rows(folder)[0]['candidate']}] a bat in the image ?" in out
    assert "Does a child [eat] a [b]cake[/b]?" in out
    assert "1 accepted, 1 waiting" in out
    assert [row["decision"] for row in rows(folder)] == ["accepted", None]
    code, out, _ = run("review", "pairs.jsonl", said="e\nhas bitten\ne\nbite\n")
    assert code == 0
    assert "1 of 1: q2, 1.png" in out
    assert "expected texts that differ in one word" in out
    assert rows(folder)[1]["contrastive"] == TEXTS[2].replace("eat", "bite")
    assert "1 accepted, 1 edited" in out


def test_review_stops_where_it_is_told_to_or_where_the_input_ends(run, folder):
    run(*MAKE)
    for said in ("q\n", "", "e\n"):
        code, out, _ = run("review", "pairs.jsonl", said=said)
        assert code == 0
        assert "2 waiting" in out
    run("review", "pairs.jsonl", said="r\n")
    assert [row["decision"] for row in rows(folder)] == ["rejected", None]


def test_a_whole_text_can_be_given(run, folder):
    run(*MAKE)
    text = TEXTS[0].replace("hold", "smell")
    run("review", "pairs.jsonl", said=f"e\n{text}\nq\n")
    assert rows(folder)[0]["contrastive"] == text
