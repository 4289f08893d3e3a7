"""Results as HTML and SVG: what is said is in it, and what people say is inert."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rvelens.app.asking import YesNoAnswer
from rvelens.app.chart import chart
from rvelens.app.markup import answer_card, escape, figures, head_map, head_marks, message
from rvelens.app.pictures import CHANGE, HEAT, changed, heated, hexes
from rvelens.tokens.grid import single_tile


@given(st.text())
def test_no_text_is_markup_or_a_template(text):
    assert not set("<>${}\"'") & set(escape(text))


def test_answers_say_text_and_probabilities():
    html = answer_card("plain", YesNoAnswer("Yes <b>", 0.75, 0.125), "plain")
    assert "Yes &lt;b&gt;" in html
    assert "0.750" in html
    assert "width:12.5%" in html
    assert "P(yes)" not in answer_card("plain", YesNoAnswer("Yes", None, None), "plain")


def test_messages_are_one_line_and_absent_without_text():
    assert message("") == ""
    assert 'role="alert">a b<' in message("a\n  b")


def test_the_map_has_a_button_for_each_head_and_its_colour_follows_the_score():
    scores = np.array([[0.0, 0.5], [1.0, 0.25], [0.1, 0.1]], dtype=np.float32)
    html = head_map(scores)
    buttons = re.findall(r'data-head="(\d\.\d)" style="background:(#\w{6})" title="([^"]+)"', html)
    assert [head for head, _, _ in buttons] == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert buttons[2][2] == "1.0: 1.000"
    shades = {head: shade for head, shade, _ in buttons}
    assert shades["2.0"] == shades["2.1"]
    assert len(set(shades.values())) == 5
    assert '[data-head="1.0"]' in head_marks("1.0", ["0.1"])


def test_a_map_of_equal_scores_is_drawn():
    assert head_map(np.zeros((2, 2), dtype=np.float32)).count("<button") == 4


def test_heat_is_where_the_token_is():
    grid, plain = single_tile(2, 2), Image.new("RGB", (40, 40), "white")
    values = np.array([0.0, 0.0, 0.0, 1.0])
    hot = np.asarray(heated(plain, values, grid, 1.0)).astype(int)
    assert (hot[:20, :20] == hot[0, 0]).all()
    assert abs(hot[30, 30] - hot[5, 5]).max() > 50
    diverging = np.asarray(changed(plain, np.array([-1.0, 0.0, 0.0, 1.0]), grid, 1.0)).astype(int)
    assert diverging[5, 5, 2] > diverging[5, 5, 0]  # less is blue
    assert diverging[30, 30, 0] > diverging[30, 30, 2]  # more is orange
    assert (diverging[5, 30] == 255).all()  # no change shows the picture


def test_scales_end_in_their_own_colours():
    assert hexes(CHANGE, 3)[0] == "#0b5fa5"
    assert hexes(CHANGE, 3)[2] == "#d55e00"
    assert len(hexes(HEAT, 9)) == 9


def test_figures_carry_their_captions_twice():
    html = figures([(Image.new("RGB", (8, 8)), 'a "caption"')])
    assert html.count("a &quot;caption&quot;") == 2


def estimate(value, width=0.05):
    return {"value": value, "low": value - width, "high": value + width}


def test_the_chart_places_points_by_their_numbers():
    methods = {
        name: {"accuracy": estimate(a), "yes_ratio": estimate(y)}
        for name, a, y in (("vanilla", 0.8, 0.5), ("rve", 0.7, 0.3), ("vcd", 0.8, 0.7))
    }
    svg = re.search(r"<svg.*</svg>", chart(methods, 0.5))[0]
    circles = [
        (float(e.get("cx")), float(e.get("cy"))) for e in ElementTree.fromstring(svg).iter("circle")
    ]
    plain, rve, vcd = circles
    assert plain[1] == vcd[1] < rve[1]
    assert rve[0] < plain[0] < vcd[0]
    assert plain[0] - rve[0] == pytest.approx(vcd[0] - plain[0], abs=0.2)
    labels = [
        float(e.get("y")) for e in ElementTree.fromstring(svg).iter("text") if e.get("class") == "n"
    ]
    assert min(abs(a - b) for n, a in enumerate(labels) for b in labels[:n]) >= 14.5
    assert chart({"vanilla": {"accuracy": None, "yes_ratio": None}}, 0.5) == ""
