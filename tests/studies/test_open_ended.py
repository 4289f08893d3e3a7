"""Open-ended answers: exact match, a judge, and what stands beside Table 2."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import completion, judge_server
from study_cases import StoppedError, count, hooked, measure, questions, stop_after, unreadable

from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.store import stored_answers
from rvelens.heads.profile import ARSProfile
from rvelens.model.hooked_lvlm import TINY, HookedLVLM
from rvelens.studies import find_study
from rvelens.studies.kit.paper import lookup
from rvelens.studies.open_ended import exactly

METHODS = ("vanilla", "rve")
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes-open", n=12)


@pytest.fixture(scope="module")
def profile():
    return ARSProfile.load(TINY / "profile.safetensors")


@pytest.fixture(scope="module")
def done(tiny, scenes, profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("open")
    return out, *measure("open-ended", tiny, [scenes], out, profile, METHODS)


def open_questions(reference="man", n=6):
    benchmark = questions(n, name="mmrel-open", positives=())
    groups = ("real-action", "dalle-action")
    return benchmark.keep(
        [
            replace(item, truth=None, reference=reference, group=groups[k % 2])
            for k, item in enumerate(benchmark.items)
        ]
    )


# -- exact match -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Ball", True), ("ball.", True), ("  BALL, a red one", True), ('"ball"', True),
        ("a ball", False), ("balls", False), ("", False), ("...", False),
    ],
)  # fmt: skip
def test_the_first_word_decides(answer, right):
    assert exactly(answer, "ball") is right
    assert exactly(answer, "Ball.") is right


@given(st.text(), st.text())
def test_only_the_first_word_plays_a_part(answer, more):
    assert exactly(f"ball {answer}", "ball")
    assert exactly(answer, "ball") == exactly(
        f"{answer} {more}" if answer.split() else answer, "ball"
    )


def test_shares_and_differences_are_those_of_plain_loops(done, scenes):
    out, *_, data = done
    assert data["scored_by"] == "exact match, no judge"
    right = {}
    for method in METHODS:
        folder = out / "parts/open-ended/rvelens--tiny/run/action-scenes-open" / method
        said = stored_answers(folder, scenes.items)
        right[method] = [
            said[item.id].text.lower().rstrip(".").split()[:1] == [item.reference.lower()]
            for item in scenes.items
        ]
    groups = data["benchmarks"]["action-scenes-open"]["groups"]
    assert list(groups) == ["all", "action", "object"]
    for name, figures in groups.items():
        among = [k for k, item in enumerate(scenes.items) if name in ("all", item.group)]
        assert figures["n"] == len(among)
        shares = {m: sum(right[m][k] for k in among) / len(among) for m in METHODS}
        for method in METHODS:
            assert figures["mean"][method]["value"] == pytest.approx(shares[method], abs=1e-6)
        change = figures["difference"]["rve"]
        assert change["value"] == pytest.approx(shares["rve"] - shares["vanilla"], abs=1e-6)
        assert change["low"] <= change["value"] <= change["high"]
    assert 0 < sum(right["vanilla"]) < 24


def test_a_run_that_was_stopped_ends_the_same_and_asks_nothing_twice(
    done, tiny, scenes, profile, tmp_path
):
    with pytest.raises(StoppedError):
        measure("open-ended", tiny, [scenes], tmp_path, profile, METHODS, progress=stop_after(2))
    seen = []
    *_, data = measure(
        "open-ended", tiny, [scenes], tmp_path, profile, METHODS, progress=count(seen)
    )
    assert data == done[3]
    assert len(seen) == 6 - 2


def test_without_a_judge_nothing_stands_beside_the_papers_scores(done):
    shown = find_study("open-ended").show(done[1], [done[3]])
    assert list(shown.tables) == [""]
    assert shown.tables[""].title == "Share right (exact match, no judge)"
    assert "not the paper's scores" in shown.tables[""].notes[0]
    assert all("exact match, no judge" in line for line in shown.sentences)
    assert list(shown.figures) == [""]


def test_what_is_said_claims_only_what_is_confirmed(done):
    data = copy.deepcopy(done[3])
    figures = data["benchmarks"]["action-scenes-open"]["groups"]
    for name, low, high in (("all", 0.1, 0.3), ("action", -0.3, -0.1), ("object", -0.1, 0.1)):
        figures[name]["difference"]["rve"] = {"value": (low + high) / 2, "low": low, "high": high}
        figures[name]["photographs"] = 20
    says = find_study("open-ended").show(done[1], [data]).sentences
    for line, said in zip(says, ("better (", "worse (", "no change that these"), strict=True):
        assert f"rve against vanilla: {said}" in line
    figures["all"]["photographs"] = 19
    assert (
        "too few photographs to say" in find_study("open-ended").show(done[1], [data]).sentences[0]
    )


# -- a judge -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava():
    return hooked("llava")


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judged(llava, server, out, monkeypatch, benchmark=None):
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    model, profile = llava
    return measure(
        "open-ended", model, [benchmark or open_questions("a man rides")], out, profile, METHODS,
        options={"judge_model": "gpt-5-mini"},
    )  # fmt: skip


def length(prompt, n):
    """A score that depends on the answer alone."""
    answer = re.search(r"<model_answer>\n(.*?)\n</model_answer>", prompt, re.DOTALL)[1]
    return 200, completion(f"Score: {len(answer) % 11}")


def test_a_judges_scores_are_kept_compared_and_put_beside_table_2(
    llava, tmp_path, monkeypatch, key
):
    with judge_server(length) as server:
        setup, _, data = judged(llava, server, tmp_path, monkeypatch)
        n = len(server.requests)
        assert judged(llava, server, tmp_path, monkeypatch)[2] == data
        assert len(server.requests) == n  # every reply was kept
    benchmark = open_questions("a man rides")
    scores = {}
    for method in METHODS:
        said = stored_answers(setup.parts.folder / "run" / "mmrel-open" / method, benchmark.items)
        scores[method] = [len(said[item.id].text) % 11 for item in benchmark.items]
    groups = data["benchmarks"]["mmrel-open"]["groups"]
    for method in METHODS:
        assert groups["real-action"]["mean"][method]["value"] == pytest.approx(
            sum(scores[method][::2]) / 3, abs=1e-6
        )
    assert all(KEY not in p.read_text() for p in tmp_path.rglob("*.json*") if p.is_file())
    data = copy.deepcopy(data) | {"model": "llava-hf/llava-1.5-7b-hf"}
    shown = find_study("open-ended").show(setup, [data])
    rows = {row[0]: row for row in shown.tables["table2"].rows}
    for domain in ("real", "dalle"):
        row = rows[f"llava-1.5-7b, mmrel-open, action, rve, domain {domain}"]
        assert row[3] == groups[f"{domain}-action"]["mean"]["rve"]
        (cell,) = lookup("table2", model="llava-1.5-7b", domain=domain, method="rve")
        assert row[4] == pytest.approx(row[3]["value"] - cell.value, abs=1e-6)
    assert any("wording of the judge's prompt is this project's own" in note
               for note in shown.tables["table2"].notes)  # fmt: skip


def test_what_the_judge_gave_no_score_is_left_out_for_every_method_and_counted(
    llava, tmp_path, monkeypatch, key
):
    def answer(prompt, n):
        if "kick" in prompt:
            return 200, completion("I would say seven.")
        return 200, completion("Score: 7")

    with judge_server(answer) as server:
        setup, _, data = judged(llava, server, tmp_path, monkeypatch)
    one = data["benchmarks"]["mmrel-open"]
    assert one["groups"]["all"]["n"] == 4
    assert one["unscored"]["rve"]["unreadable"] == 2
    notes = find_study("open-ended").show(setup, [data]).tables[""].notes
    assert any("mmrel-open, rve: 2 scores unreadable, 0 requests failed" in note for note in notes)


def test_a_judge_that_never_answers_is_an_error(llava, tmp_path, monkeypatch, key):
    with (
        judge_server(lambda prompt, n: (400, {"error": {"message": "no"}})) as server,
        pytest.raises(
            ValueError, match=r"the judge gave no score to any of 6 answers .*run the same"
        ),
    ):
        judged(llava, server, tmp_path, monkeypatch)


def test_what_cannot_be_scored_is_said_before_anything_is_asked(llava, tmp_path, monkeypatch):
    model, profile = llava
    long = open_questions("a man rides")
    with pytest.raises(
        ValueError, match=r"mmrel-open without a judge: expected one.*'a man rides'"
    ):
        measure("open-ended", model, [long], tmp_path / "a", profile, METHODS)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set: expected"):
        measure("open-ended", model, [long], tmp_path / "b", profile, METHODS,
                options={"judge_model": "m"})  # fmt: skip
    with pytest.raises(ValueError, match="which has yes/no questions: expected open-ended"):
        measure("open-ended", model, [questions()], tmp_path / "c", profile, METHODS)
    assert not list(tmp_path.rglob("answers*.jsonl"))


# -- any model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["instructblip", "qwen2_5_vl", "llava_next"])
def test_any_family_and_pictures_that_cannot_be_read(family, tmp_path):
    model, profile = hooked(family)
    benchmark = open_questions()
    items = [replace(benchmark.items[0], image="gone", load=unreadable), *benchmark.items[1:]]
    setup, _, data = measure(
        "open-ended", model, [benchmark.keep(items)], tmp_path, profile, METHODS
    )
    assert data["benchmarks"]["mmrel-open"]["groups"]["all"]["n"] == 5
    shown = find_study("open-ended").show(setup, [data, data | {"model": "other"}])
    assert any("1 question could not be asked" in note for note in shown.tables[""].notes)
    assert len(shown.figures) == 2
