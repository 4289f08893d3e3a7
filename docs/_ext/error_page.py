"""The page of error messages: every message of the package, with what is explained about a few."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from public import documented_modules, home, public_names
from raised import PLACEHOLDER, ROOT, Raised, all_raised, plain
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
EXPLAINED = ROOT / "docs" / "errors_explained.md"
ANCHOR_WORDS = 10


@dataclass(frozen=True)
class Explained:
    """A section of docs/errors_explained.md.

    Attributes:
        key: its heading, a part of one message.
        text: what stands below: sentences and examples.
    """

    key: str
    text: str

    @property
    def examples(self) -> list[str]:
        """Python code that raises the message."""
        return re.findall(r"^```python\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)

    def matches(self, template: str) -> bool:
        """Whether the key is a part of a message; names of placeholders do not matter."""
        return plain(self.key) in plain(template)


def explained() -> list[Explained]:
    """Every section of docs/errors_explained.md."""
    pieces = re.split(r"^## (.*)$", EXPLAINED.read_text("utf-8"), flags=re.MULTILINE)
    return [Explained(*pair) for pair in zip(pieces[1::2], pieces[2::2], strict=True)]


def slug(template: str, most: int | None = None) -> str:
    """The words of a message without placeholders, up to a number of them, for its anchor."""
    words = re.findall(r"[a-z0-9]+", PLACEHOLDER.sub(" ", template).lower())
    return "-".join(words[:most])


def messages() -> str:
    """A heading for each folder of the package, and a list of the messages raised there."""
    # Templates that differ in names of placeholders alone are one message.
    places: dict[str, list[tuple[str, Raised]]] = {}
    for one in all_raised():
        for template in one.templates:
            places.setdefault(plain(template), []).append((template, one))
    notes = _notes(places)
    times = Counter(slug(message, ANCHOR_WORDS) for message in places)
    areas: dict[str, list[str]] = {}
    for message, found in places.items():
        template, first = found[0]
        anchor = slug(message, ANCHOR_WORDS)
        if times[anchor] > 1:
            anchor = f"{slug(message)}-{first.module.rpartition('.')[2].replace('_', '-')}"
        entry = _entry(template, anchor, [one for _, one in found], notes.get(message, ""))
        areas.setdefault(_area(first), []).append(entry)
    return "\n\n".join("\n".join([f"## {area}\n", *areas[area]]) for area in sorted(areas))


def _notes(known: Iterable[str]) -> dict[str, str]:
    """What is explained, by message; warns of a key that is a part of none or of several."""
    notes: dict[str, str] = {}
    for section in explained():
        found = [message for message in known if section.matches(message)]
        if len(found) == 1:
            notes[found[0]] = section.text
        else:
            LOGGER.warning(
                "%s: %r is a part of %d messages: expected one; change the heading to words of the "
                "message as it is in the code.", EXPLAINED.name, section.key, len(found)
            )  # fmt: skip
    return notes


def _area(one: Raised) -> str:
    """The folder of a module, right below the package."""
    *folders, _ = one.file.split("/")
    return "rvelens.hooks" if folders == ["hooks"] else ".".join(folders[:2])


def _entry(template: str, anchor: str, places: list[Raised], note: str) -> str:
    """An item of the list, in Markdown."""
    link = f'<a class="headerlink" href="#{anchor}" title="Link to this message">¶</a>'
    kinds = ", ".join(dict.fromkeys(f"`{one.kind}`" for one in places))
    by = ", ".join(dict.fromkeys(name for one in places for name in _by(one)))
    text = f"{_code(template)}{{#{anchor}}}{link}\n\n{kinds}, raised by {by}\n\n{note.strip()}"
    return textwrap.indent(text.strip(), "  ").replace("  ", "- ", 1) + "\n"


def _code(text: str) -> str:
    """Code in a line of Markdown, whatever is in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _by(one: Raised) -> list[str]:
    """Names of what raises it, linked where the API reference has them."""
    if one.module not in _documented():
        return [f"`{one.module}.{name}`" for name in one.by] or [f"`{one.module}`"]
    return [_linked(one.module, name) for name in one.by] or [f"{{py:obj}}`{one.module}`"]


@cache
def _documented() -> frozenset[str]:
    return frozenset(documented_modules())


def _linked(module: str, name: str) -> str:
    top = name.partition(".")[0]
    imported = importlib.import_module(module)
    if top not in public_names(imported):
        return f"`{module}.{name}`"
    return f"{{py:obj}}`{home(top, getattr(imported, top), imported)}.{name}`"
