"""docs/errors has one section for every message that the package raises, and no other."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from raised_messages import PAGES, Raised, all_raised, raised_in, sections

from rvelens import HookedLVLM
from rvelens.cli import main

RAISED = all_raised()
SECTIONS = sections()
MESSAGES = {message: raised for raised in RAISED for message in raised.templates}

# Types that a page names; a ValueError is the rule, and types of rvelens are caught inside.
NAMED = ("TypeError", "RuntimeError", "NotImplementedError")
# Raised with a text that is made elsewhere: (file, what is raised) to where its words come from.
ELSEWHERE = {
    ("rvelens/intervention.py", "ValueError(data['format'])"): "caught by `load`, which says it",
    ("rvelens/lmms/model.py", "ValueError(failed)"): "why a question could not be asked: an image",
    ("rvelens/pairs/ask_model.py", "NotMadeError(str(error))"): "of `load_image`",
    ("rvelens/pairs/file.py", "ValueError(error.msg)"): "of the parser of JSON",
}

# Not of the form "given: expected; do": what is put round or into another message, or follows it.
OTHER_FORM = {
    "half of a character",
    "nested too deeply",
    "a number that is too long",
    "{} line {}: {}",
    "{} line {}: {}; correct the line.",
    "pair {}: {}, or score them as they are with any_text (--any-text).",
    "{}: {} is not of shape {}, as its ranking is.",
}


def slug(heading: str) -> str:
    """The anchor that docutils makes of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def entry(message: str, raised: Raised) -> str:
    """A section to start from."""
    heading = re.split(r"[:;] expected|: (?=[^{])", message)[0].replace("{}", "…")
    text = "\n".join(textwrap.wrap(as_shown(message), 80, break_on_hyphens=False))
    return f"## {heading}\n\n```text\n{text}\n```\n\nWhen it is raised. What to do.\n"


def as_shown(message: str) -> str:
    """How a page shows it: with its type, where that is one of `NAMED`."""
    kind = MESSAGES[message].kind
    return f"{kind}: {message}" if kind in NAMED else message


def test_every_message_has_a_section_on_one_page():
    documented = Counter(message for section in SECTIONS for message in section.messages)
    missing = [m for m in MESSAGES if not documented[as_shown(m)]]
    told = "\n".join(
        f"{MESSAGES[m].file}:{MESSAGES[m].line}\n{entry(m, MESSAGES[m])}" for m in missing
    )
    assert not missing, (
        f"messages without a section in docs/errors: {len(missing)}. Add each of these to the page "
        f"of its topic, with names in the braces and a sentence or two in place of the last line; "
        f"a ```python or ```console block that raises it is run by the test below.\n\n{told}"
    )
    twice = [message for message, n in documented.items() if n > 1]
    assert not twice, f"explained more than once in docs/errors, keep one: {twice}"


def test_no_page_explains_what_is_no_longer_raised():
    known = {as_shown(message) for message in MESSAGES}
    gone = [f"{s.page}, {s.heading!r}: {m}" for s in SECTIONS for m in s.messages if m not in known]
    assert not gone, (
        "nothing raises these any more; change the ```text block to the message as it is now, or "
        "remove its section:\n" + "\n".join(gone)
    )


def test_every_message_says_what_was_expected():
    """Reasons of pairs that were not made, which have types of their own, say what was found."""
    raised = {m for m, one in MESSAGES.items() if one.kind in ("ValueError", *NAMED)}
    vague = {m for m in raised if "expected" not in m}
    assert not vague - OTHER_FORM, (
        f"write each as 'given: expected; what to do.': {vague - OTHER_FORM}"
    )


def test_texts_made_elsewhere_are_listed_with_the_reason():
    unread = {(r.file, r.source) for r in RAISED if not r.templates}
    assert not unread - set(ELSEWHERE), (
        "the text of these is not written where they are raised; write it there, or add them to "
        f"ELSEWHERE with where it comes from: {sorted(unread - set(ELSEWHERE))}"
    )
    assert not set(ELSEWHERE) - unread, "no longer raised; remove from ELSEWHERE"


def test_every_section_is_whole_and_has_an_anchor_of_its_own():
    for section in SECTIONS:
        where = f"{section.page}, {section.heading!r}"
        assert section.messages, f"{where}: no ```text block with its message"
        prose = re.sub(r"^```.*?^```", "", section.text, flags=re.MULTILINE | re.DOTALL)
        assert prose.strip(), f"{where}: say when it is raised and what to do"
    anchors = [(s.page, slug(s.heading)) for s in SECTIONS]
    again = {a for a in anchors if anchors.count(a) > 1}
    assert not again, f"headings of one page that share an anchor, so links go astray: {again}"


INDEX = (PAGES / "index.md").read_text("utf-8")
EXAMPLES = [(s, language, code) for s in SECTIONS for language, code in s.examples]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """What every example begins with, run once."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("start"))
        exec(re.findall(r"^```python\n(.*?)^```", INDEX, re.MULTILINE | re.DOTALL)[0], names)
    return names


@pytest.fixture
def place(start, tmp_path, monkeypatch):
    """An empty folder but for the picture, no key, and a model without hooks, before and after."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "RVELENS_DATA", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start["image"].save("scene.png")
    yield dict(start)
    start["model"].reset_hooks()
    start["model"].query_rows = "last"
    HookedLVLM.from_pretrained(start["model"].hf_model)  # switches its attention back


def said_by_python(code, names):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
        exec(code, names)
    kind = type(error.value).__name__
    text = str(error.value)
    return f"{kind}: {text}" if kind in NAMED else text, isinstance(error.value, ValueError)


def said_by_command(code, capsys):
    *before, command = [shlex.split(line.removeprefix("$ ")) for line in code.splitlines()]
    for name, path in before:
        assert name == "touch"
        Path(path).touch()
    with pytest.raises(SystemExit) as end:
        main(command[1:])
    said = " ".join(capsys.readouterr().err.split())
    return said.removeprefix("rvelens: "), end.value.code == 2


@pytest.mark.parametrize(
    ("section", "language", "code"),
    EXAMPLES,
    ids=[f"{s.page}-{slug(s.heading)}" for s, _, _ in EXAMPLES],
)
def test_an_example_raises_what_its_section_says(place, capsys, section, language, code):
    python = language == "python"
    said, as_told = said_by_python(code, place) if python else said_by_command(code, capsys)
    forms = [".+".join(map(re.escape, message.split("{}"))) for message in section.messages]
    # Of a line in a file: the file and the line stand before what is wrong with it.
    bare = re.sub(r"^\S+ line \d+: ", "", " ".join(said.split()))
    assert any(re.fullmatch(form, text) for form in forms for text in (said, bare)), said
    assert as_told or said.startswith(NAMED)


def test_at_least_forty_messages_are_raised_for_real():
    assert len({slug(s.heading) for s, _, _ in EXAMPLES}) >= 40


SOURCE = """
def near(name):
    return f"no {name}: expected one " "of two."

def both(x, path):
    if x:
        raise ValueError("first: expected " + ("a." if x == 1 else f"{x}."))
    raise KeyError(near(path)) from None

def passed_on(text):
    problems.append(ValueError("a row: expected {braces}."))
    raise TypeError(text)
"""


def test_messages_are_read_from_every_way_to_write_them():
    found = {(one.kind, one.templates) for one in raised_in(SOURCE)}
    assert found == {
        ("ValueError", ("first: expected a.", "first: expected {}.")),
        ("KeyError", ("no {}: expected one of two.",)),
        ("ValueError", ("a row: expected {}.",)),
        ("TypeError", ()),
    }
