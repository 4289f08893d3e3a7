"""The house style: nothing global changes, colours differ for all eyes, labels stay apart."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from figure_checks import check_words, label
from hypothesis import given
from hypothesis import strategies as st

from rvelens.plots import ROLES, Series, lines, save_figure
from rvelens.plots.style import COLUMN, new_figure, place_labels, role, ticks, wrapped

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
FIGURE = lines({"a": Series(np.array([0.1, 0.2, 0.3]))}, x_label="x", y_label="y")


def linear(colour):
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB under D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", VISION)
def test_roles_differ_for_all_eyes(eyes):
    colours = {look.colour for look in ROLES.values()}
    seen = [lab(np.asarray(VISION[eyes]) @ linear(colour)) for colour in sorted(colours)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 12


def test_roles_can_be_read_on_white_and_told_apart_without_colour():
    for name, look in ROLES.items():
        luminance = linear(look.colour) @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) > 3, name
    by_order = [role("", n) for n in range(6)]
    assert len({look.marker for look in by_order}) == 6
    assert len({str(look.line) for look in by_order}) == 6


def test_an_unknown_role():
    with pytest.raises(ValueError, match="role 'rv': expected one of plain, rve, control"):
        role("rv")


def test_nothing_global_changes_and_nothing_global_leaks_in():
    before = dict(matplotlib.rcParams)
    dark = {"axes.facecolor": "black", "font.size": 30, "xtick.labelsize": 30, "axes.grid": True}
    with matplotlib.rc_context(dark):
        figure = lines({"a": Series(np.arange(4.0))}, x_label="x", y_label="y")
    assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)
    assert {t.get_fontsize() for t in figure.axes[0].get_xticklabels()} == {7}


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_files_of_each_kind_are_the_same_each_time(tmp_path, ending):
    for name in ("a", "b"):
        save_figure(FIGURE, tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
    assert len(first) > 2000
    assert first == second


def test_words_of_an_svg_stay_words(tmp_path):
    save_figure(FIGURE, tmp_path / "a.svg")
    assert ">0.1" in (tmp_path / "a.svg").read_text().replace("0.10", "0.1")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.png, \.pdf, \.svg"):
        save_figure(FIGURE, tmp_path / "figure.gif")
    with pytest.raises(ValueError, match="no folder"):
        save_figure(FIGURE, tmp_path / "none" / "figure.png")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        save_figure(FIGURE, tmp_path / "a.png")


def test_pyplot_is_never_imported():
    code = "import sys, rvelens.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.12)), min_size=1, max_size=8))
def test_spread_labels_do_not_overlap_keep_their_order_and_stay_inside(labels):
    wanted, heights = (np.array(column) for column in zip(*labels, strict=True))
    placed = place_labels(wanted, heights)
    order = np.argsort(placed)
    gaps = np.diff(placed[order]) - (heights[order][1:] + heights[order][:-1]) / 2
    assert (gaps > -1e-9).all()
    assert (placed - heights / 2 > -1e-9).all()
    assert (placed + heights / 2 < 1 + 1e-9).all()
    assert (np.diff(wanted[order]) >= 0).all()


def test_labels_with_room_stay_where_they_are_wanted():
    wanted = np.array([0.8, 0.2, 0.5])
    np.testing.assert_allclose(place_labels(wanted, np.full(3, 0.1)), wanted)
    # Two that want one place move from it by as much.
    np.testing.assert_allclose(place_labels(np.array([0.5, 0.5]), np.full(2, 0.1)), [0.45, 0.55])
    assert place_labels(np.zeros(0), np.zeros(0)).shape == (0,)


def test_titles_are_wrapped_and_no_formulas():
    title = (
        "Is $x_1 a cost of 5$ or a name_with_underscores that goes on beyond one line of a column?"
    )
    figure, _ = new_figure(COLUMN, 2.0, title)
    assert figure.get_suptitle().replace("\n", " ") == title
    assert "\n" in figure.get_suptitle()
    figure = lines({"$a_1$": Series(np.ones(2))}, x_label="$x", y_label="y$", title=title)
    check_words(figure)
    assert not label(figure, "$a_1$").get_parse_math()


def test_wrapping_keeps_line_breaks_and_words():
    assert wrapped("a\nb", 3.0) == "a\nb"
    inch = 17 * 0.6 * 7 / 72 + 0.01  # 17 letters of 7 points
    assert wrapped("llava-hf/llava-1.5-7b-hf, layers 3-5", inch).split("\n") == [
        "llava-hf/llava-",
        "1.5-7b-hf, layers",
        "3-5",
    ]


@given(st.text("ab /-1\n", max_size=60), st.floats(0.5, 3.0))
def test_wrapping_loses_nothing_and_fits(text, inches):
    lines_ = wrapped(text, inches).split("\n")
    assert "".join("".join(lines_).split()) == "".join(text.split())
    assert max(map(len, lines_)) <= max(int(inches * 72 / 4.2), 6)


def test_ticks_are_few_and_round():
    assert ticks(6) == [0, 1, 2, 3, 4, 5]
    assert ticks(32) == list(range(0, 32, 4))
    assert ticks(1) == [0]
    assert all(len(ticks(n)) <= 9 for n in range(1, 600))
