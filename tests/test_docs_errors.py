"""The page of error messages shows every message that the package raises; each says what to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
import error_page  # noqa: E402
import raised  # noqa: E402

RAISED = raised.all_raised()
MESSAGES = {raised.plain(message): one for one in RAISED for message in one.templates}
EXPLAINED = error_page.explained()

# Of the form "given: expected; do". Types of rvelens are reasons of pairs that were not made.
FORMED = ("ValueError", "TypeError", "RuntimeError", "NotImplementedError")
# Raised with a text that is made elsewhere: (file, what is raised) to where its words come from.
ELSEWHERE = {
    (
        "rvelens/files/atomic.py",
        "OSError(error.errno, error.strerror or str(error), str(path))",
    ): "of the operating system",
    (
        "rvelens/files/stored.py",
        "MalformedError(f\"{place}: {first['msg']}\" if place else first['msg'])",
    ): "of pydantic; caught by `read_stored`, which names the file",
    ("rvelens/lmms/model.py", "ValueError(failed)"): "why a question could not be asked: an image",
    ("rvelens/pairs/ask_model.py", "NotMadeError(str(error))"): "of `load_image`",
}
# Not of the form "given: expected; do": what is put round or into another message, or follows it.
OTHER_FORM = {
    "half of a character",
    "nested too deeply",
    "a number that is too long",
    "not UTF-8 text",
    "{} at {}column {}",
    "{} line {}: {}",
    "{}: {}; correct the line.",
    "pair {}: {}, or score them as they are with any_text (--any-text).",
}


def test_every_message_is_on_the_page_under_an_anchor_of_its_own():
    page = error_page.messages()
    entries = re.findall(r"^- (`+) ?(.*?) ?\1\{#([a-z][a-z0-9-]*)\}", page, re.MULTILINE)
    assert {raised.plain(message) for _, message, _ in entries} == set(MESSAGES)
    assert len({anchor for _, _, anchor in entries}) == len(entries) == len(MESSAGES)
    for section in EXPLAINED:
        assert section.text.strip().splitlines()[0] in page


def test_an_explanation_of_no_message_is_a_warning_which_stops_the_build(monkeypatch, caplog):
    monkeypatch.setattr(
        error_page, "explained", lambda: [error_page.Explained("no such message", "")]
    )
    error_page.messages()
    assert "'no such message' is a part of 0 messages" in caplog.text


def test_every_message_says_what_was_expected():
    vague = {m for m, one in MESSAGES.items() if one.kind in FORMED and "expected" not in m}
    assert vague == OTHER_FORM, f"write as 'given: expected; what to do.': {vague ^ OTHER_FORM}"


# The rest of the sentence is the caller's: `expected` holds what to do, or the line follows.
ENDED_ELSEWHERE = {
    "no file {}: expected {}.",
    "{} cannot be read ({}): expected {}.",
    "{} is not JSON ({}): expected {}.",
    "{} is not a result of `rvelens tune` ({}): expected {}.",
    "{}: expected a JSON object",
    "{} is {}: expected a string",
    "'id' is {}: expected a string or a number",
}


def test_every_message_says_what_to_do():
    formed = {m for m, one in MESSAGES.items() if one.kind in FORMED and "expected" in m}
    ends = {m for m in formed if not re.search(r"expected .*(; |\?$)", m, re.DOTALL)}
    assert ends == ENDED_ELSEWHERE, (
        f"write as 'given: expected; what to do.': {ends ^ ENDED_ELSEWHERE}"
    )


def test_texts_made_elsewhere_are_listed_with_the_reason():
    unread = {(one.file, one.source) for one in RAISED if not one.templates}
    assert unread == set(ELSEWHERE), "write the text where it is raised, or say where it comes from"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    names = {}
    page = error_page.Explained("", (DOCS / "errors.md").read_text("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("start"))
        exec(page.examples[0], names)
    return names


@pytest.mark.parametrize("section", EXPLAINED, ids=lambda section: error_page.slug(section.key))
def test_an_explanation_is_of_one_message_and_its_example_raises_it(
    start, tmp_path, monkeypatch, section
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (message,) = filter(section.matches, MESSAGES)
    assert not section.text.strip().startswith("```"), "say what the message does not"
    for code in section.examples:
        with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
            exec(code, dict(start))
        start["model"].reset_hooks()
        assert re.fullmatch(".+".join(map(re.escape, message.split("{}"))), str(error.value))
        assert type(error.value).__name__ == MESSAGES[message].kind


SOURCE = """
def near(name):
    return f"no {name}: expected one " "of two."

def both(x):
    raise ValueError("first: expected " + ("a." if x == 1 else f"{x.shape[0]!r} or {len(x)}."))
    raise KeyError(near(x)) from None

def _passed_on(text):
    problems.append(ValueError("a row: expected {braces}."))
    raise TypeError(text)

def calling(text):
    _passed_on(text)
"""


def test_messages_are_read_from_every_way_to_write_them():
    assert {(one.kind, *one.by, one.templates) for one in raised.raised_in(SOURCE)} == {
        ("ValueError", "both", ("first: expected a.", "first: expected {shape} or {n}.")),
        ("KeyError", "both", ("no {name}: expected one of two.",)),
        ("ValueError", "calling", ("a row: expected {braces}.",)),
        ("TypeError", "calling", ()),
    }
