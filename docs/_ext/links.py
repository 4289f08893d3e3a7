"""Follow every link within the built site, anchors included: `python docs/_ext/links.py FOLDER`.

Each page is read once. LinkChecker's AnchorCheck reads a page anew for every anchor in it, of which an
API reference has thousands: that takes longer than all tutorials together.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[tuple[int, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep `id`, `name`, `href` and `src`."""
        for key, value in attrs:
            if key == "id" or (key == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif key in ("href", "src") and value is not None and tag != "base":
                self.targets.append((self.getpos()[0], value))


def broken(site: Path) -> list[str]:
    """One sentence for each link to a file or an anchor that is not there.

    Links to other sites are left alone.

    Raises:
        ValueError: no page in the folder.
    """
    site = site.resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise ValueError(f"no page below {site}: expected a built site; run `make docs`.")
    found = []
    for path, page in pages.items():
        for line, target in page.targets:
            why = _wrong(path, target, site, pages)
            if why:
                found.append(f"{path.relative_to(site)}:{line}: {target!r}: {why}")
    return found


def _wrong(path: Path, target: str, site: Path, pages: dict[Path, Page]) -> str:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not there.is_relative_to(site):
        return "expected a file of the site."
    if not there.is_file():
        return "no such file."
    anchor = unquote(parts.fragment)
    if anchor and there in pages and anchor not in pages[there].anchors:
        return f"no anchor {anchor!r} there."
    return ""


if __name__ == "__main__":
    wrong = broken(Path(sys.argv[1]))
    sys.stderr.writelines(f"{one}\n" for one in wrong)
    sys.exit(1 if wrong else 0)
