"""In a real Chromium: a link brings the head profile back; Heads and Runs are taken away as files."""

from __future__ import annotations

import pytest
from browsing import MARKS, arrive, ask, field, panel, put, saved, scene
from executing import executed
from playwright.sync_api import expect

from rvelens.app.shared import scene_pairs, scenes

pytestmark = MARKS
MEASURE = "Measure a profile on 64 scenes"


def opened(browser, address):
    page = browser.new_context().new_page()
    arrive(page, address)
    return page


def link_of(page):
    return page.url.partition("?")[2]


def test_an_address_reproduces_a_measured_profile(page, browser, address):
    panel(page, "Heads")
    expect(page.locator("#head-maps figure")).to_have_count(3)
    page.wait_for_url("**profile=rvelens%2Ftiny**")
    page.get_by_role("button", name=MEASURE).click()
    expect(page.locator("#about")).to_contain_text("measured on 64 pairs")
    page.wait_for_url("**profile=scenes%3A64**")
    scene(page, 1, "pair-question", scene_pairs()[1].question)
    page.locator('.rv-map [data-head="3.5"]').click()
    expect(field(page, "chosen")).to_have_value("3.5")
    page.wait_for_url("**heads.without=3.5**")
    panel(page, "Ask")
    scene(page, 4, "ask-question", scenes()[4].text)
    ask(page)
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(3)
    page.wait_for_url("**scene=4**")
    other = opened(browser, f"{address}&{link_of(page)}")
    expect(other.locator("#about")).to_contain_text("measured on 64 pairs")
    expect(other.locator("#ask-answers")).to_contain_text("measured on 64 pairs, not saved")
    for name in ("#about", "#ask-answers"):
        assert page.locator(name).inner_text() == other.locator(name).inner_text()
    assert sorted(link_of(other).split("&")) == sorted(link_of(page).split("&"))
    panel(other, "Heads")
    expect(field(other, "chosen")).to_have_value("3.5")
    maps = [one.locator("#heads-map").text_content() for one in (page, other)]
    assert maps[0] == maps[1]
    panel(other, "Ask")
    scene(other, 1, "ask-question", scenes()[1].text)  # what was answered before does not stay
    expect(other.locator("#ask-answers .rv-answer")).to_have_count(0)
    other.context.close()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("..%2Fown", "the address has profile=../own: expected published, scenes:64, rvelens/tiny"),
        ("published", "no ranking was published for 'rvelens/tiny': expected"),
        ("file%3A0123456789abcdef", "is of a head profile in a file, which no address carries"),
    ],
)
def test_an_address_of_no_profile_says_so(browser, address, name, problem):
    page = opened(browser, f"{address}&scene=3&profile={name}")
    expect(page.locator("#model-problem")).to_contain_text(problem)
    expect(page.locator("#about")).to_contain_text("its shipped head profile")
    expect(field(page, "ask-question")).to_have_value(scenes()[3].text)
    page.wait_for_url("**profile=rvelens%2Ftiny**")  # what the answers are given with
    page.context.close()


def test_the_path_of_a_profile_is_in_no_address(page, models, tmp_path):
    models.choose("rvelens/tiny").profile.save(tmp_path / "private.safetensors")
    page.get_by_role("button", name="Another model or head profile").click()
    put(page, "profile", str(tmp_path / "private.safetensors"))
    page.locator("#load").click()
    expect(page.locator("#about")).to_contain_text("The address does not carry this head profile")
    page.wait_for_url("**profile=file%3A**")
    assert "private" not in page.url


def test_heads_can_be_taken_away(page, tmp_path, monkeypatch, capsys):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page, "Heads")
    expect(page.locator("#head-maps figure")).to_have_count(3)
    page.locator('.rv-map [data-head="3.5"]').click()
    expect(page.locator("#heads-tools pre")).to_contain_text("heads = {3: [5]}")
    page.locator("#without").click()
    answers = page.locator("#heads-answers .rv-answer q")
    expect(answers).to_have_count(4)
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    names = executed(page.evaluate("navigator.clipboard.readText()"), tmp_path, monkeypatch)
    texts = [rows[n][0] for n in range(2) for rows in names["answers"].values()]
    assert answers.all_inner_texts() == texts
    first = names["attention"][0].sum()
    expect(page.locator("#head-maps figcaption").first).to_contain_text(f"{first:.1%}")
    assert capsys.readouterr().out.startswith("tensor(")
    name, content = saved(page, "Figure as PDF")
    assert (name, content) == ("heads.pdf", (tmp_path / "heads.pdf").read_bytes())
    assert saved(page, "Figure as PNG")[1].startswith(b"\x89PNG")
    page.get_by_label("this pair").click()
    expect(page.locator("#heads-tools pre")).to_contain_text("ars_heatmap(pair_profile")
    put(page, "chosen", "3.")
    expect(page.locator("#heads-tools")).to_contain_text("expected layer.head")


def test_runs_can_be_taken_away(page, tmp_path, monkeypatch, capsys):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page, "Runs")
    expect(page.locator("#run-cases article").first).to_be_visible()
    page.get_by_label("gained", exact=True).click()
    expect(page.locator("#run-tools pre")).to_contain_text("direction='gained'")
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    names = executed(page.evaluate("navigator.clipboard.readText()"), tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    for cell in page.locator("#run-tables td").all_inner_texts():
        assert cell.strip() in printed
    expect(page.locator("#run-cases")).to_contain_text(f"{len(names['cases'])} of")
    ids = page.locator("#run-cases article h3").all_inner_texts()
    assert len(ids) == min(len(names["cases"]), 6)
    name, content = saved(page, "Figure as PDF")
    assert (name, content) == ("run.pdf", (tmp_path / "run.pdf").read_bytes())
    assert saved(page, "Figure as PNG")[1].startswith(b"\x89PNG")
