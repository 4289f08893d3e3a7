"""Addresses: what is on the page goes in and comes out, and nothing private goes in."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rvelens.app.address import Place, link_to, read_link
from rvelens.app.asking import ask
from rvelens.app.fields import fields_of
from rvelens.app.heads_link import HeadsPlace, read_heads_link
from rvelens.app.models import Models
from rvelens.app.settings import settings_of
from rvelens.app.shared import SKIP, scene_pairs, scenes
from rvelens.app.tab_ask import restored
from rvelens.app.viewer import Focus


@pytest.fixture(scope="module")
def models():
    return Models()


@pytest.fixture(scope="module")
def asked(models):
    scene = scenes()[3]
    wanted = {
        "rve": {"k": 3, "denoise": False, "beta": 1.0},
        "region": {"box": "1,2,30,40", "layers": "2-4"},
    }
    return ask(models.get("rvelens/tiny"), scene.image, "Is it <b> & ${x}?", wanted)


def test_an_address_brings_back_what_was_on_the_page(asked):
    link = link_to(asked, Focus(4, 1, "change"))
    place = read_link("?" + link + "&tab=ask&heads.pair=3")
    assert place.scene == 3
    assert place.question == "Is it <b> & ${x}?"
    assert place.methods == ("rve", "region")
    assert place.view == Focus(4, 1, "change")
    assert place.model == "rvelens/tiny"
    assert place.settings["rve"] == {
        "k": "3",
        "denoise": False,
    }  # what is at its default is left out
    assert place.settings["region"] == {"box": "1,2,30,40", "layers": "2-4"}
    assert place.settings["vaf"] == {}


def test_a_restored_page_asks_the_same(asked, models):
    start = models.choose("rvelens/tiny")
    place = read_link(link_to(asked, Focus(None, 1)))
    image, question, first, second, view, *fields = restored(place, start, fields_of(place))
    assert (question, first, second, view) == (
        asked.question,
        "rve",
        "region",
        Focus(None, 1),
    )
    assert image.tobytes() == asked.image.tobytes()
    names = [setting.name for setting in settings_of("rve")]
    assert [v for v in fields[: len(names)] if v != SKIP] == ["3", False]


def test_no_upload_and_no_path_goes_into_an_address(asked, tmp_path):
    folder = str(tmp_path / "private")
    trace = replace(asked.trace, image=Image.new("RGB", (9, 9)), model=folder)
    link = link_to(replace(asked, trace=trace), Focus())
    assert parse_qs(link)["scene"] == ["upload"]
    assert "model" not in parse_qs(link)
    assert "private" not in link


def test_an_address_of_an_upload_or_of_another_model_says_so(models):
    start = models.choose("rvelens/tiny")
    with pytest.raises(ValueError, match="of an uploaded picture, which no address carries"):
        restored(read_link("scene=upload"), start, [])
    with pytest.raises(
        ValueError, match=r"of the model a/b, and this page opened with rvelens/tiny"
    ):
        restored(read_link("model=a/b"), start, [])


def test_a_bare_address_is_a_fresh_page(models):
    assert read_link("") == replace(Place(), settings=read_link("").settings)
    assert not any(read_link("").settings.values())
    bare = replace(models.choose("rvelens/tiny"), profile=None)
    assert restored(read_link("scene=1"), bare, [])[1:4] == (scenes()[1].text, "vaf", "none")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("scene=99", r"the address has scene=99: expected a number from 0 to 7; correct it\."),
        ("scene=-1", "the address has scene=-1: expected a number"),
        ("methods=rve,magic", r"the address has method=magic: expected one of rve, vcd, icd"),
        ("methods=rve,rve", "expected two different ones at most"),
        ("layer=x", "the address has layer=x: expected a number"),
        ("show=all", "the address has show=all: expected one of attention, change"),
        ("rve.denoise=maybe", "the address has denoise=maybe: expected one of True, False"),
        ("rve.scope=some", "the address has scope=some: expected one of all, sensitive"),
    ],
)
def test_what_an_address_gets_wrong_is_named(query, said):
    with pytest.raises(ValueError, match=said):
        read_link(query)


def test_the_heads_of_an_address_are_read():
    assert read_heads_link("?scene=3&tab=heads", 6, 12) is None
    place = read_heads_link("heads.pair=1&heads.head=3.5&heads.without=4.1,%203.5", 6, 12)
    pair = scene_pairs()[1]
    assert place == HeadsPlace(1, pair.question, pair.contrastive, "3.5", "3.5, 4.1")
    with pytest.raises(ValueError, match=r"the address has heads.pair=8: expected a number from 0"):
        read_heads_link("heads.pair=8", 6, 12)
    with pytest.raises(ValueError, match="of an uploaded picture of a pair, which no address"):
        read_heads_link("heads.pair=upload", 6, 12)
    with pytest.raises(ValueError, match=r"head 9.0 of a model of 6 layers"):
        read_heads_link("heads.without=9.0", 6, 12)


@given(st.text(max_size=30))
@settings(max_examples=50)
def test_any_address_is_read_or_refused(text):
    try:
        place = read_link("scene=" + text)
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017
    else:
        assert place.scene is None or 0 <= place.scene < 8
