"""The head profile in an address: by a name that anyone can have, and never by a path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvelens import ARSProfile
from rvelens.app.models import Choice, Models, save_profile
from rvelens.app.page import _about
from rvelens.app.profile_link import NOT_CARRIED, is_carried, profile_part, read_profile_link


@pytest.fixture(scope="module")
def start(models):
    return models.choose("rvelens/tiny")


@pytest.fixture(scope="module")
def own(models, tmp_path_factory):
    """A profile in a file."""
    path = tmp_path_factory.mktemp("private") / "own.safetensors"
    ARSProfile.from_scores(torch.rand(6, 12)).save(path)
    return models.choose("rvelens/tiny", str(path))


def test_names_that_anyone_can_have_go_into_an_address(start):
    assert profile_part(start) == "rvelens/tiny"
    for name in ("published", "published:llava-1.5-7b", "someone/profile", "scenes:64"):
        assert profile_part(replace(start, profile_name=name)) == name
        assert is_carried(replace(start, profile_name=name))
    bare = Choice("rvelens/tiny", None, "")
    assert profile_part(bare) == ""
    assert is_carried(bare)


def test_no_path_goes_into_an_address(models, start, own, tmp_path, monkeypatch):
    assert profile_part(own) == f"file:{own.profile.digest()}"
    assert NOT_CARRIED in _about(models, own)
    assert NOT_CARRIED not in _about(models, start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone/profile").mkdir(parents=True)
    for name in ("someone/profile", "./a.safetensors", "a.safetensors", "~/a", "/a", "a\\b/c", ""):
        assert profile_part(replace(start, profile_name=name)) == f"file:{start.profile.digest()}"


def test_a_profile_that_was_measured_here_is_measured_again(models, start, tmp_path):
    measured = models.measure_scenes(start)
    assert profile_part(measured) == "scenes:64"
    assert models.measure_scenes(start) is measured  # once for all windows
    restored = read_profile_link(Models(), start, "?tab=heads&profile=scenes%3A64")
    assert restored.is_restored
    assert torch.equal(restored.profile.scores, measured.profile.scores)
    assert (restored.source, restored.code) == (measured.source, measured.code)
    saved = save_profile(restored, str(tmp_path / "new.safetensors"))
    assert profile_part(saved) == "scenes:64"
    assert not saved.is_restored
    again = read_profile_link(models, measured, "profile=rvelens/tiny")
    assert again.profile.digest() == start.profile.digest()


def test_what_the_page_opened_with_needs_no_restoring(models, start, own):
    assert read_profile_link(models, start, "") is None
    assert read_profile_link(models, start, "scene=3&profile=rvelens/tiny") is None
    assert read_profile_link(models, start, "model=some/other&profile=scenes:64") is None
    assert read_profile_link(models, own, f"profile={profile_part(own)}") is None


def test_a_profile_in_a_file_is_asked_for(models, start, own):
    with pytest.raises(
        ValueError,
        match=r"of a head profile in a file, which no address .*: expected the file; load",
    ):
        read_profile_link(models, start, f"profile={profile_part(own)}")


@pytest.mark.parametrize(
    "name", ["none", "../own", "/etc/passwd", "scenes:9", "a/b/c", "~/x", "own.safetensors"]
)
def test_what_is_no_name_of_a_profile_is_refused(models, start, name):
    with pytest.raises(
        ValueError,
        match=r"the address has profile=.*: expected published, scenes:64, .*, and no path; correct it",
    ):
        read_profile_link(models, start, f"profile={name}")


def test_a_folder_here_is_not_taken_for_a_name(models, start, own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    own.profile.save_folder(tmp_path / "someone/profile")
    with pytest.raises(ValueError, match="head profile someone/profile on the Hub, and a link"):
        read_profile_link(models, start, "profile=someone/profile")


def test_names_that_nothing_has_are_refused(models, start):
    for name, says in (
        ("published", "no ranking was published for 'rvelens/tiny': expected .*; if"),
        ("published:nothing", "no published ranking for 'nothing': expected one of .*; measure"),
        ("published:llava-1.5-7b", "a profile of 32 layers x 32 heads.*: expected .*; "),
        (
            "no-one/has-this",
            "profile no-one/has-this on the Hub, and a link starts no download: expected .*; load",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            read_profile_link(models, start, f"profile={name}")


@given(st.text(max_size=12))
@settings(max_examples=50)
def test_any_name_is_refused_or_public(text):
    choice = Choice("rvelens/tiny", ARSProfile.from_scores(torch.rand(6, 12)), "", "", text)
    assert "/" not in profile_part(choice).partition("/")[2]
    assert not profile_part(choice).startswith(("/", ".", "~"))
