"""What a figure that can be published must not do: words on words, words beyond the paper."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def words(figure: Figure) -> dict[Text, Bbox]:
    """Every text that is drawn, with its extent in pixels at a resolution that is quick to draw."""
    figure.set_dpi(60)
    figure.draw_without_rendering()
    shown, ticks = set(), set()
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xticklabels")):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                ticks |= {tick.label1, tick.label2}
                if low - slack <= tick.get_loc() <= high + slack and axes.axison:
                    shown |= {tick.label1, tick.label2}
    others = set(figure.findobj(Text)) - ticks
    drawn = [t for t in shown | others if t.get_visible() and t.get_text().strip()]
    return {text: _extent(text) for text in drawn}


def _extent(text: Text) -> Bbox:
    """Of an annotation the words alone, as its leader may cross others; without empty first lines."""
    box = Text.get_window_extent(text)
    said = text.get_text()
    empty = (len(said) - len(said.lstrip("\n"))) / (said.count("\n") + 1)
    return Bbox.from_extents(box.x0, box.y0, box.x1, box.y1 - box.height * empty)


def check_words(figure: Figure) -> None:
    """No text overlaps another or leaves the figure, by more than a pixel of 60 in an inch."""
    boxes = words(figure)
    paper = figure.bbox
    assert boxes
    for text, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= paper.x1 + 1 and box.y1 <= paper.y1 + 1
        assert inside, f"{text.get_text()!r} at {box.bounds} leaves {paper.bounds}"
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) <= 1.5, f"{one.get_text()!r} on {other.get_text()!r}"


def label(figure: Figure, text: str) -> Text:
    """The one text of a figure that says this, however its lines are broken."""
    found = [t for t in figure.findobj(Text) if " ".join(t.get_text().split()) == text]
    assert len(found) == 1, (text, [t.get_text() for t in figure.findobj(Text)])
    return found[0]


def smallest_text(figure: Figure) -> float:
    """Points of the smallest text drawn."""
    return float(np.min([text.get_fontsize() for text in words(figure)]))
