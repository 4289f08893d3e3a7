"""The tab Ask in a real Chromium: words, sliders, addresses, downloads, and a box that is drawn."""

from __future__ import annotations

import json
import re

from browsing import MARKS, arrive, ask, field, panel, put, saved, scene, shown_steps, slide
from playwright.sync_api import expect

from rvelens.app.shared import scene_pairs, scenes

pytestmark = MARKS


def test_ask(page):
    scene(page, 4, "ask-question", scenes()[4].text)
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(0)
    ask(page)
    answers = page.locator("#ask-answers .rv-answer")
    expect(answers).to_have_count(3)
    expect(answers.nth(1)).to_contain_text("rve")
    expect(answers.nth(2)).to_contain_text("vaf")
    expect(page.locator("#ask-answers")).to_contain_text("the truth: yes")
    expect(page.locator("#ask-pictures figure")).to_have_count(3)
    expect(page.locator("#ask-pictures")).to_contain_text("in 1 to 3 layers (3-5)")
    slide(page, "layer", 4)
    expect(page.locator("#ask-pictures")).to_contain_text("in layer 4")
    expect(page.locator("#ask-answers")).to_contain_text("mean over the heads of layer 4")
    page.get_by_role("button", name="change", exact=True).click()
    expect(page.locator("#ask-answers")).to_contain_text("change against plain")
    assert "layer=4" in page.url
    assert "show=change" in page.url


def test_a_word_shows_where_it_looked(page):
    """By mouse, keyboard, finger and slider."""
    words = page.locator(".rv-answer").first.locator(".rv-words button")
    assert shown_steps(page) == ["0"] * 3
    words.nth(1).hover()
    expect(words.nth(1)).to_have_class(re.compile(r"\bon\b"))
    assert shown_steps(page) == ["1"] * 3
    assert "step=1" in page.url
    words.nth(0).focus()
    assert shown_steps(page) == ["0"] * 3
    page.keyboard.press("ArrowRight")
    assert shown_steps(page) == ["1"] * 3
    expect(page.locator(".rv-controls")).to_contain_text("2 of 2")
    words.nth(0).dispatch_event("click")
    assert shown_steps(page) == ["0"] * 3
    slide(page, "step", 1)
    assert shown_steps(page) == ["1"] * 3
    slide(page, "layer", 2)  # the token stays on show
    expect(page.locator("#ask-answers")).to_contain_text("mean over the heads of layer 2")
    assert shown_steps(page) == ["1"] * 3


def test_an_address_reproduces_the_page(page, browser, address):
    scene(page, 6, "ask-question", scenes()[6].text)
    put(page, "ask-question", "Is it a cake & <b>?")
    page.get_by_role("button", name="Settings").click()
    field(page, "settings-rve").fill("2-3")
    ask(page)
    expect(page.locator("#ask-answers")).to_contain_text("rve: layers 2-3")
    slide(page, "layer", 3)
    expect(page.locator("#ask-answers")).to_contain_text("heads of layer 3")
    slide(page, "step", 1)
    link = page.url.partition("?")[2]
    assert "token" not in link
    other = browser.new_context().new_page()
    arrive(other, f"{address}&{link}")
    expect(field(other, "ask-question")).to_have_value("Is it a cake & <b>?")
    expect(other.locator("#ask-answers")).to_contain_text("heads of layer 3")
    assert other.url.partition("?")[2] == link
    answers = [one.locator("#ask-answers").inner_text() for one in (page, other)]
    assert answers[0] == answers[1]
    other.context.close()


def test_an_address_reproduces_the_heads(page, browser, address):
    panel(page, "Heads")
    expect(page.locator("#head-maps figure")).to_have_count(3)
    scene(page, 1, "pair-question", scene_pairs()[1].question)
    page.locator('.rv-map [data-head="3.5"]').click()
    expect(page.locator("#head-maps")).to_contain_text("Head 5 of layer 3")
    expect(field(page, "chosen")).to_have_value("3.5")
    page.wait_for_url("**heads.without=3.5**")
    other = browser.new_context().new_page()
    arrive(other, f"{address}&{page.url.partition('?')[2]}")
    expect(other.locator("#head-maps")).to_contain_text("Head 5 of layer 3")
    expect(field(other, "pair-contrastive")).to_have_value(scene_pairs()[1].contrastive)
    expect(field(other, "chosen")).to_have_value("3.5")
    assert page.locator("#head-maps").inner_text() == other.locator("#head-maps").inner_text()
    other.context.close()


def test_an_address_with_mistakes_says_so(browser, address):
    page = browser.new_context().new_page()
    arrive(page, f"{address}&scene=99")
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(3)
    expect(page.locator("#link-problem")).to_contain_text("scene=99: expected a number from 0 to 7")
    ask(page)
    expect(page.locator("#link-problem .rv-message")).to_have_count(0)
    page.context.close()


def test_what_is_on_the_page_can_be_taken_away(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "trace_methods(model, methods, image, question, decoding" in code
    compile(code, "page", "exec")
    name, manifest = saved(page, "Save manifest")
    assert name == "manifest.json"
    assert json.loads(manifest)["question"] == scenes()[2].text
    assert saved(page, "Figure as PDF")[1].startswith(b"%PDF")
    assert saved(page, "Figure as PNG")[1].startswith(b"\x89PNG")


def test_a_region_is_drawn_on_a_picture(page):
    page.get_by_role("button", name="Draw a region").click()
    shot = page.locator(".rv-columns figure:visible .rv-shot").first
    box = shot.bounding_box()
    at = [
        (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        for x, y in ((0.5, 0.7), (0.75, 0.9))
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    expect(page.locator("#ask-answers")).to_contain_text(
        "region: layers 3-5, beta 1.0, region [48.0, 67.0, 72.0, 86.0]"
    )
    expect(page.locator(".rv-answer").nth(2)).to_contain_text("region")
    expect(page.locator(".rv-shot .rv-region").first).to_be_attached()
    assert "region.box=48%2C67%2C72%2C86" in page.url
