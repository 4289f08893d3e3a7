"""Flipped answers: their choice, what was enhanced, and a page that stands alone."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from study_cases import StoppedError, count, hooked, measure, questions, stop_after, unreadable

from rvelens import ARSProfile
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.store import stored_answers
from rvelens.hooks import mask_recording_hooks
from rvelens.model.hooked_lvlm import TINY, HookedLVLM
from rvelens.studies import find_study
from rvelens.studies.cases.pictures import draw_cases, n_layers, tinted
from rvelens.studies.cases.study import choose_flips, masks_of
from rvelens.studies.kit.write import write_study
from rvelens.tokens.grid import single_tile

METHODS = ("vanilla", "rve")
FOUR = {"options": {"n_cases": 4}}


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", n=64)


@pytest.fixture(scope="module")
def profile():
    return ARSProfile.load(TINY / "profile.safetensors")


@pytest.fixture(scope="module")
def done(tiny, scenes, profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("cases")
    return out, *measure("cases", tiny, [scenes], out, profile, METHODS, **FOUR)


@pytest.fixture(scope="module")
def shown(done):
    return find_study("cases").show(done[1], [done[3]])


# -- what is measured --------------------------------------------------------------------------------


def test_flips_are_those_of_plain_loops(done, scenes):
    out, _, _, data = done
    folder = out / "parts/cases/rvelens--tiny/run/action-scenes"
    said = {method: stored_answers(folder / method, scenes.items) for method in METHODS}
    one = data["benchmarks"]["action-scenes"]
    expected, unchanged = {}, 0
    for item in scenes.items:
        before, after = (
            (said[method][item.id].text.lower() == "yes") == item.truth for method in METHODS
        )
        if before != after:
            expected[item.id] = "gained" if after else "lost"
        else:
            unchanged += 1
    assert {flip["id"]: flip["direction"] for flip in one["flips"]} == expected
    assert set(expected.values()) == {"gained", "lost"}
    assert one["right_both"] + one["wrong_both"] == unchanged
    for flip in one["flips"]:
        margin = said["rve"][flip["id"]].margin
        assert flip["after"]["p_yes"] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-6)


@given(
    st.lists(st.sampled_from(["gained", "lost"]), max_size=12), st.integers(0, 5), st.integers(0, 9)
)
def test_at_most_n_of_each_direction_are_chosen_the_same_each_time(directions, n, seed):
    flips = [{"id": str(k), "direction": d} for k, d in enumerate(directions)]
    chosen = choose_flips(flips, n, seed)
    assert chosen == choose_flips(flips, n, seed) == sorted(chosen, key=int)
    for direction in ("gained", "lost"):
        among = [k for k in chosen if directions[int(k)] == direction]
        assert len(set(among)) == min(n, directions.count(direction))


def test_the_choice_is_random():
    flips = [{"id": str(k), "direction": "lost"} for k in range(9)]
    assert {k for seed in range(60) for k in choose_flips(flips, 1, seed)} == {
        str(k) for k in range(9)
    }


def test_tokens_are_those_that_the_method_masks(done, tiny, scenes):
    _, setup, _, data = done
    one = data["benchmarks"]["action-scenes"]
    assert set(one["masks"]) == set(one["chosen"])
    (rve,) = (method for method in setup.methods if method.name == "rve")
    for item in (item for item in scenes.items if item.id in one["chosen"]):
        cache = {}
        with torch.no_grad(), tiny.hooks(mask_recording_hooks(rve.hooks, cache)):
            tiny(**tiny.prepare(item.load(), item.text), logits_to_keep=1)
        assert {int(layer) for layer in one["masks"][item.id]} == set(cache) == {3, 4, 5}
        for layer, masks in cache.items():
            found = one["masks"][item.id][str(layer)]
            assert found["enhanced"] == [k for k, on in enumerate(masks.target[0]) if on]
            assert found["removed"] == [k for k, on in enumerate(masks.removed[0]) if on]


def test_a_run_that_was_stopped_twice_ends_the_same(done, tiny, scenes, profile, tmp_path):
    """In the middle of the questions, and between the masks of two batches."""
    run = ("cases", tiny, [scenes], tmp_path, profile, METHODS)
    seen = []
    for n in (10, 7):
        with pytest.raises(StoppedError):
            measure(*run, **FOUR, progress=stop_after(n))
    data = measure(*run, **FOUR, progress=count(seen))[2]
    assert data == done[3]
    in_all = 16 + math.ceil(len(data["benchmarks"]["action-scenes"]["chosen"]) / 4)
    assert len(seen) == in_all - 17 == seen.count("masks-action-scenes")


# -- the page ----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_needs_nothing_else(shown):
    text = shown.pages[""]
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert all(image["alt"] for image in page.all("img"))
    assert not re.search(r"https?:|url\(|@import|\son\w+=", re.sub(r"base64,[^\"]*", "", text))
    assert "prefers-color-scheme: dark" in text
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_the_page_shows_each_chosen_case_and_says_how_many_there_are(done, shown):
    one = done[3]["benchmarks"]["action-scenes"]
    page = Page(shown.pages[""])
    totals = [sum(f["direction"] == d for f in one["flips"]) for d in ("gained", "lost")]
    here = [min(4, n) for n in totals]
    said = (
        f"shows {here[0]} of all {totals[0]} gained answers and {here[1]} of all {totals[1]} lost "
        "answers, drawn at random with seed 55"
    )
    assert said in page.text
    classes = [article["class"].split()[0] for article in page.all("article")]
    assert [classes.count("gained"), classes.count("lost")] == here
    assert len(page.all("img")) == 3 * sum(here)
    for flip in one["flips"]:
        assert (f"· {flip['id']}" in page.text) == (flip["id"] in one["chosen"])


def test_every_filter_is_an_anchor_that_some_case_answers_to(shown):
    page = Page(shown.pages[""])
    links = {a["id"] for a in page.all("a")}
    assert all(a["href"] == f"#{a['id']}" for a in page.all("a"))
    classes = {c for article in page.all("article") for c in article["class"].split()}
    assert links - {"all"} == classes
    for key in classes:
        assert f"body:has(#{key}:target) :is(article:not(.{key})" in shown.pages[""]


def test_whatever_a_benchmark_holds_is_text(tmp_path):
    model, profile = hooked("llava")
    evil = '<script>alert("1")</script> & "quoted\' onload=x <u>'
    benchmark = questions(6, name="some")
    benchmark = benchmark.keep(
        [
            replace(i, id=f"{i.id}{evil}", group=evil, text=f"{i.text} {evil}")
            for i in benchmark.items
        ]
    )
    setup, _, data = measure("cases", model, [benchmark], tmp_path, profile, METHODS)
    one = data["benchmarks"]["some"]
    item = benchmark.items[0]
    said = {"answer": evil, "p_yes": None}
    one["flips"] = [
        {"id": item.id, "group": evil, "question": item.text, "truth": "yes", "before": said,
         "after": said, "direction": "gained"},
    ]  # fmt: skip
    one["chosen"], one["verdict"] = [item.id], evil
    page = Page(find_study("cases").show(setup, [data]).pages[""])
    assert {"script", "u"} & {tag for tag, _ in page.tags} == set()
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert page.text.count(evil) >= 5
    assert page.open == []


# -- pictures ----------------------------------------------------------------------------------------


def test_tokens_are_counted_over_layers():
    layers = {"3": {"enhanced": [0, 2], "removed": []}, "4": {"enhanced": [2], "removed": [1]}}
    assert n_layers(layers, "enhanced", 4).tolist() == [1, 0, 2, 0]
    assert n_layers(layers, "removed", 4).tolist() == [0, 1, 0, 0]


def test_marked_tokens_are_coloured_in_their_place_and_what_is_cropped_is_darker():
    picture = Image.new("RGB", (80, 40), (255, 255, 255))
    grid = single_tile(2, 2, (0.0, 0.0, 0.5, 1.0))
    seen = np.asarray(tinted(picture, np.array([0.0, 2.0, 0.0, 0.0]), grid, 2)).astype(int)
    assert seen[10, 10].tolist() == [255] * 3
    assert len(set(seen[10, 30])) == 3
    assert seen[30, 30].tolist() == [255] * 3
    assert (seen[10, 60] < 160).all()


def test_pictures_are_small_and_whole(done, tiny, scenes):
    one = done[3]["benchmarks"]["action-scenes"]
    item = next(item for item in scenes.items if item.id in one["chosen"])
    found = draw_cases(tiny, item, one["masks"][item.id])
    for uri in (found.plain, *found.marked.values()):
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert image.size == (448, 448)
        assert len(uri) < 60_000
    gone = draw_cases(tiny, replace(item, load=unreadable), one["masks"][item.id])
    assert (gone.plain, gone.marked, gone.reason) == (None, {}, "no image here.")
    assert gone.layers == found.layers


# -- files, options, any model -----------------------------------------------------------------------


def test_all_flips_are_in_a_csv(done, shown):
    out, _, made_with, data = done
    study = find_study("cases")
    names = {path.name for path in write_study(out, study, [made_with], [data], shown)}
    assert names == {"cases.json", "cases.csv", "cases-flips.csv", "cases.html", "cases.md"}
    one = data["benchmarks"]["action-scenes"]
    with (out / "cases-flips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [flip["id"] for flip in one["flips"]]
    assert [row["id"] for row in rows if row["on the page"] == "yes"] == one["chosen"]
    counts = shown.tables[""].rows
    assert counts[0][2] == 64 == sum(row[2] for row in counts[1:])
    for column in (3, 4, 5):
        assert counts[0][column] == sum(row[column] for row in counts[1:])


@pytest.mark.parametrize("family", ["instructblip", "qwen2_5_vl", "llava_next"])
def test_any_family(family, tmp_path):
    model, profile = hooked(family)
    benchmark = questions(6)
    setup, _, data = measure("cases", model, [benchmark], tmp_path, profile, METHODS)
    one = data["benchmarks"]["some"]
    before = {"answer": "no", "p_yes": 0.25}
    one["flips"] = [
        {"id": "q1", "group": "b", "question": benchmark.items[1].text, "truth": "yes",
         "before": before, "after": before, "direction": "gained"},
    ]  # fmt: skip
    one["chosen"] = ["q1"]
    one["masks"] = masks_of(setup, benchmark, ["q1"], setup.methods[1])
    page = Page(find_study("cases").show(setup, [data]).pages[""])
    alone = family == "instructblip"
    assert len(page.all("img")) == (1 if alone else 3)
    assert ("have no place in the picture" in page.text) == alone
    assert "Tokens by layer" in page.text


def test_a_method_that_enhances_no_tokens_has_pictures_alone(tmp_path):
    model, _ = hooked("llava")
    setup, _, data = measure(
        "cases", model, [questions(6)], tmp_path, None, ("pai", "vanilla"),
        options={"against": "pai"},
    )  # fmt: skip
    assert (data["before"], data["after"]) == ("vanilla", "pai")
    assert data["benchmarks"]["some"]["masks"] == {}
    page = find_study("cases").show(setup, [data]).pages[""]
    assert "Image tokens marked" not in page


def test_what_cannot_be_compared_is_refused(tmp_path):
    model, _ = hooked("llava")
    with pytest.raises(
        ValueError, match=r"against='rve' and the methods vanilla: expected it among"
    ):
        measure("cases", model, [questions()], tmp_path / "a")
    with pytest.raises(ValueError, match="against='vanilla' and the methods vanilla: expected"):
        measure("cases", model, [questions()], tmp_path / "b", options={"against": "vanilla"})
    with pytest.raises(ValueError, match="which has open-ended questions"):
        measure("cases", model, [questions(truth=lambda k: None)], tmp_path / "c")
