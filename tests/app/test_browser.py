"""The explorer in a real Chromium: each tab's main path, mistakes, and nothing fetched elsewhere."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsing import MARKS, PATIENCE, arrive, ask, field, keep, panel, put, scene
from playwright.sync_api import expect

import rvelens
from rvelens.app.shared import scene_pairs, scenes

pytestmark = MARKS
# What each tab shows without a click.
FILLED = {
    "Ask": "#ask-pictures figure",
    "Heads": "#head-maps figure",
    "Pairs": "#pairs-card img",
    "Runs": "#run-cases img",
}
STICKING_OUT = """e => [...e.querySelectorAll('.rv-answer, figure, .rv-map, button, .block')]
  .filter(x => x.getBoundingClientRect().right > innerWidth + 1).map(x => x.className)"""
# Checkboxes whose label is cut off, and rows of pictures of which some are wider than others.
UNLABELLED = """[...document.querySelectorAll('label:has(> [type=checkbox]) > span')]
  .filter(x => x.checkVisibility() && x.clientWidth < 20).map(x => x.textContent)"""
UNEQUAL = """[...document.querySelectorAll('.rv-figures, .pictures')]
  .map(row => [...row.children].map(x => Math.round(x.getBoundingClientRect().width)))
  .filter(widths => new Set(widths).size > 1)"""
# Types into each field the moment a person could, and opens whatever hides the next one.
HASTY = """const fields = ['ask-question', 'model', 'settings-rve', 'pair-contrastive',
  'pairs-file', 'run-folder'];
const hiding = {model: '.rv-fold button', 'settings-rve': '#panel-ask .rv-fold button',
  'pair-contrastive': '#tab-heads', 'pairs-file': '#tab-pairs', 'run-folder': '#tab-runs'};
const shown = e => e?.checkVisibility({visibilityProperty: true});
const step = opening => {
  const field = document.querySelector(`#${fields[0]} :is(textarea, input)`);
  const opens = document.querySelector(hiding[fields[0]] ?? 'none');
  if (shown(field)) {
    field.value = 'in haste';
    field.dispatchEvent(new Event('input', {bubbles: true}));
    fields.shift();
  } else if (opening && shown(opens)) opens.click();
  if (!fields.length) document.documentElement.dataset.hasty = '';
};
const all = {subtree: true, childList: true,
  attributeFilter: ['data-rv-ready', 'aria-expanded', 'aria-selected']};
const watch = new MutationObserver(() => fields.length ? step(false) : watch.disconnect());
watch.observe(document, all);
const tick = setInterval(() => fields.length ? step(true) : clearInterval(tick), 50);"""


def test_nothing_typed_is_lost(browser, address):
    """Gradio puts initial values into fields that appear late, over what was typed by then."""
    page = browser.new_context().new_page()
    page.add_init_script(HASTY)
    arrive(page, address)
    expect(page.locator("html[data-hasty]")).to_be_attached()
    page.wait_for_timeout(1000)
    for name in ("model", "ask-question", "settings-rve", "pair-contrastive", "pairs-file"):
        expect(field(page, name)).to_have_value("in haste")
    expect(field(page, "run-folder")).to_have_value("in haste")
    page.context.close()


def test_settings_reach_the_method(page):
    scene(page, 0, "ask-question", scenes()[0].text)
    page.get_by_role("button", name="Settings").click()
    field(page, "settings-rve").fill("2")
    ask(page)
    expect(page.locator("#ask-answers")).to_contain_text("rve: layers 2, k 5")
    field(page, "settings-rve").fill("2-99")
    ask(page)
    expect(page.locator("#ask-problem")).to_contain_text("expected layers from 0 to 5")
    page.get_by_label("Method").first.click()
    page.get_by_role("option", name="vcd").click()
    ask(page)
    expect(page.locator("#ask-answers")).to_contain_text("vcd: alpha 1.0, beta 0.1, step 500")
    expect(page.locator("#settings-vcd")).to_be_visible()
    expect(page.locator("#settings-rve")).to_be_hidden()
    expect(page.locator("#ask-problem .rv-message")).to_have_count(0)


def test_mistakes_are_told_and_the_page_goes_on(page, folder):
    problem = page.locator("#ask-problem")
    page.get_by_label("Remove Image").first.click()
    ask(page)
    expect(problem).to_contain_text("no image is given")
    upload = page.locator('[role=tabpanel]:visible input[type="file"]').first
    upload.set_input_files(folder / "text.png")
    expect(page.locator(".rv-picture img").first).to_be_attached()
    ask(page)
    expect(problem).to_contain_text("cannot be read as an image")
    page.get_by_label("Remove Image").first.click()
    page.locator('[role=tabpanel]:visible input[type="file"]').first.set_input_files(
        folder / "large.png"
    )
    expect(page.locator(".rv-picture img").first).to_be_attached()
    ask(page)
    expect(problem).to_contain_text("60.0 megapixels: expected at most 40")
    scene(page, 1, "ask-question", scenes()[1].text)
    put(page, "ask-question", "  ")
    ask(page)
    expect(problem).to_contain_text("expected a sentence")
    put(page, "ask-question", "<img src=x onerror=alert(1)> ${1+1} {{value}}?")
    ask(page)
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(3)
    expect(problem.locator(".rv-message")).to_have_count(0)


def test_a_model_that_fails_to_load_leaves_the_old_one(page, folder):
    page.get_by_role("button", name="Another model or head profile").click()
    put(page, "model", str(folder))
    page.locator("#load").click()
    expect(page.locator("#model-problem")).to_contain_text("cannot be loaded")
    expect(page.locator("#about")).to_contain_text("rvelens/tiny: llava, 6 layers")
    put(page, "model", "rvelens/tiny")
    put(page, "profile", "nowhere.safetensors")
    page.locator("#load").click()
    expect(page.locator("#model-problem")).to_contain_text("no profile at nowhere.safetensors")


def test_another_model_leaves_nothing_of_the_old_one(page):
    expect(page.locator("#ask-pictures figure")).to_have_count(3)
    panel(page, "Heads")
    page.locator('.rv-map [data-head="3.5"]').click()
    expect(field(page, "chosen")).to_have_value("3.5")
    page.locator("#without").click()
    expect(page.locator("#heads-answers .rv-answer")).to_have_count(4)
    page.get_by_role("button", name="Another model or head profile").click()
    put(page, "model", str(Path(rvelens.__file__).parent / "assets/tiny"))
    page.locator("#load").click()
    expect(page.locator("#about")).to_contain_text("no head profile yet")
    for gone in (
        "#heads-answers .rv-answer",
        "#head-maps figure",
        ".rv-map button, .rv-list button",
    ):
        expect(page.locator(gone)).to_have_count(0)
    expect(field(page, "chosen")).to_have_value("")
    panel(page, "Ask")
    expect(page.locator("#ask-answers .rv-answer, #ask-pictures figure")).to_have_count(0)
    ask(page)
    expect(page.locator("#ask-problem")).to_contain_text("method 'rve' without a head profile")


def test_heads(page):
    panel(page, "Heads")
    expect(page.locator(".rv-map button")).to_have_count(6 * 12)
    expect(page.locator("#head-maps figure")).to_have_count(3)  # the most sensitive head
    scene(page, 1, "pair-question", scene_pairs()[1].question)
    expect(field(page, "pair-contrastive")).to_have_value(scene_pairs()[1].contrastive)
    page.locator('.rv-map [data-head="3.5"]').click()
    maps = page.locator("#head-maps")
    expect(maps).to_contain_text("Head 5 of layer 3")
    expect(maps.locator("figure")).to_have_count(3)
    page.locator('.rv-list [data-head="4.1"]').click()
    expect(field(page, "chosen")).to_have_value("3.5, 4.1")
    page.locator("#clear").click()
    expect(field(page, "chosen")).to_have_value("")
    page.locator('.rv-map [data-head="2.0"]').hover()
    page.mouse.down()
    page.locator('.rv-map [data-head="3.2"]').hover()
    expect(page.locator(".rv-map .brushed")).to_have_count(6)
    page.mouse.up()
    expect(field(page, "chosen")).to_have_value("2.0, 2.1, 2.2, 3.0, 3.1, 3.2")
    page.get_by_label("layer", exact=True).click()
    expect(page.locator(".rv-list button").first).to_contain_text("0.")
    page.locator("#without").click()
    expect(page.locator("#heads-answers .rv-answer")).to_have_count(4)
    put(page, "chosen", "3.5, 9.9")
    page.locator("#without").click()
    expect(page.locator("#heads-problem")).to_contain_text("head 9.9 of a model of 6 layers")
    page.get_by_label("this pair").click()
    expect(page.locator('.rv-map [data-head="3.5"]')).to_be_visible()
    put(page, "pair-contrastive", scene_pairs()[1].question)
    page.locator("#look").click()
    expect(page.locator("#heads-problem")).to_contain_text("expected texts that differ")


def test_pairs(page, folder):
    panel(page, "Pairs")
    file = folder / "pairs.jsonl"
    put(page, "pairs-file", str(folder / "none.jsonl"))
    page.locator("#pairs-open").click()
    expect(page.locator("#pairs-problem")).to_contain_text(
        "expected a file with one JSON object per line"
    )
    put(page, "pairs-file", str(file))
    put(page, "pairs-images", str(folder))
    page.locator("#pairs-open").click()
    card = page.locator("#pairs-card")
    expect(card).to_contain_text("pair-0 · undecided")
    expect(card.locator("mark")).to_have_count(2)
    page.locator("#pairs-accept").click()
    expect(card).to_contain_text("pair-1 · undecided")
    assert decisions(file) == ["accepted", None, None]
    expect(field(page, "pairs-text")).to_have_value(scene_pairs()[1].contrastive)
    put(page, "pairs-text", "something else altogether")
    page.locator("#pairs-edit").click()
    expect(page.locator("#pairs-problem .rv-message")).to_be_visible()
    assert decisions(file) == ["accepted", None, None]
    page.locator("#pairs-reject").click()
    expect(card).to_contain_text("pair-2 · undecided")
    page.locator("#pairs-back").click()
    expect(card).to_contain_text("pair-1 · rejected")
    expect(card).to_contain_text("2 of 3")
    assert decisions(file) == ["accepted", "rejected", None]


def test_pairs_and_runs_open_with_examples_and_remember(page, folder):
    panel(page, "Pairs")
    expect(page.locator("#pairs-card")).to_contain_text("scene 0 · undecided")
    page.locator("#pairs-accept").click()
    expect(page.locator("#pairs-card")).to_contain_text("1 of 8")
    panel(page, "Runs")
    expect(page.locator("#run-cases article").first).to_be_visible()
    assert "tab=runs" in page.url
    put(page, "run-folder", str(folder / "run"))
    page.locator("#run-open").click()
    expect(page.locator("#run-recent button")).to_have_count(2)
    page.reload()  # at the tab of the address, with what the browser remembers
    page.locator("html[data-rv-ready]").wait_for()
    expect(page.get_by_role("tabpanel", name="Runs")).to_be_visible()
    expect(page.locator("#run-cases article").first).to_be_visible()
    page.locator("#run-recent button").nth(1).click()
    expect(field(page, "run-folder")).to_have_value(str(folder / "run"))
    expect(page.locator("#run-chart circle")).to_have_count(2)
    expect(page.locator("#ask-answers .rv-answer").first).to_be_attached()


def decisions(file):
    return [json.loads(line).get("decision") for line in file.read_text().splitlines()]


def test_runs(page, folder):
    panel(page, "Runs")
    put(page, "run-folder", str(folder))
    page.locator("#run-open").click()
    expect(page.locator("#run-problem")).to_contain_text(NO_RUN)
    put(page, "run-folder", str(folder / "run"))
    page.locator("#run-open").click()
    expect(page.locator("#run-chart circle")).to_have_count(2)
    expect(page.locator("#run-tables table")).to_have_count(3)
    cases = page.locator("#run-cases article")
    expect(cases.first.locator("img")).to_have_count(3)
    before, wanted = cases.count(), cases.last.locator("h3").inner_text()
    put(page, "run-search", wanted)
    field(page, "run-search").press("Enter")
    expect(cases.first).to_contain_text(wanted)
    assert cases.count() < before
    put(page, "run-search", "no such words")
    field(page, "run-search").press("Enter")
    expect(page.locator("#run-cases")).to_contain_text("0 of")


@contextmanager
def busy(models):
    """The model is at work for somebody else until the block ends."""
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with models.lock:
            held.set()
            let_go.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    yield
    let_go.set()
    holder.join()


NO_RUN = "is not a run: expected a folder with a report.json of `rvelens eval`"


def test_a_slow_example_does_not_replace_the_folder_opened_after_it(page, address, folder, models):
    panel(page, "Runs")
    expect(page.locator("#run-cases article").first).to_be_visible()  # the example is made
    arrive(page, address)
    with busy(models):
        panel(page, "Runs")
        page.wait_for_timeout(300)
        put(page, "run-folder", str(folder))
        page.locator("#run-open").click()
        page.wait_for_timeout(300)
    expect(page.locator("#run-problem")).to_contain_text(NO_RUN)
    page.wait_for_timeout(3000)
    expect(page.locator("#run-problem")).to_contain_text(NO_RUN)
    expect(page.locator("#run-chart")).to_be_hidden()


def test_the_message_of_a_folder_stays_while_the_last_run_is_drawn(page, folder):
    panel(page, "Runs")
    expect(page.locator("#run-chart")).to_be_visible()
    put(page, "run-folder", str(folder))
    page.locator("#run-open").click()
    expect(page.locator("#run-chart")).to_be_hidden()
    page.wait_for_timeout(3000)
    expect(page.locator("#run-problem")).to_contain_text(NO_RUN)


def test_answers_about_a_picture_do_not_stay_under_the_next(page, models):
    with busy(models):
        ask(page)
        page.wait_for_timeout(300)
        scene(page, 1, "ask-question", scenes()[1].text)
    page.wait_for_timeout(6000)
    assert page.locator("#ask-answers .rv-answer").count() == 0
    panel(page, "Heads")
    with busy(models):
        page.locator("#look").click()
        page.wait_for_timeout(300)
        scene(page, 1, "pair-question", scene_pairs()[1].question)
    page.wait_for_timeout(6000)
    assert page.locator("#head-maps figure").count() == 0
    page.locator("#look").click()
    expect(page.locator("#head-maps figure").first).to_be_visible()


def test_the_first_answer_does_not_stay_under_the_next_picture(browser, address, models):
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    with busy(models):
        page.goto(address)
        page.locator("html[data-rv-ready]").wait_for()
        page.wait_for_timeout(1000)
        scene(page, 1, "ask-question", scenes()[1].text)
    page.wait_for_timeout(6000)
    assert page.locator("#ask-answers .rv-answer").count() == 0
    page.context.close()


def test_people_wait_for_one_another(page, browser, address, models):
    other = browser.new_context().new_page()
    arrive(other, address)
    for one in (page, other):
        scene(one, 2, "ask-question", scenes()[2].text)
    with busy(models):
        for one in (page, other):
            ask(one)
        page.wait_for_timeout(300)
        expect(page.locator("#ask-answers .rv-answer")).to_have_count(0)
    for one in (page, other):
        expect(one.locator("#ask-answers .rv-answer")).to_have_count(3)
        expect(one.locator("#ask-problem .rv-message")).to_have_count(0)
    texts = {one.locator("#ask-answers").inner_text() for one in (page, other)}
    assert len(texts) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(browser, address, scheme):
    """Every tab at both widths, and the colours that the system asks for."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    arrive(page, address)
    expect(page.locator("#ask-pictures figure")).to_have_count(3)
    page.get_by_role("button", name="Settings").click()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 24)"}[scheme]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for name, filled in FILLED.items():
            shown = panel(page, name)
            expect(page.locator(filled).first).to_be_visible()
            assert shown.evaluate(STICKING_OUT) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(UNLABELLED) == []
            assert page.evaluate(UNEQUAL) == []
            keep(page, f"{name}-{scheme}-{width}")
    assert page.locator("footer:visible").count() == 0
    context.close()
