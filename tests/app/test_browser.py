"""The explorer in a real Chromium: each tab's main path, mistakes, and nothing fetched elsewhere.

`RVELENS_SCREENSHOTS` names a folder that screenshots are kept in; `RVELENS_CHROMIUM` a browser.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import rvelens
from rvelens.app.page import served
from rvelens.app.shared import scene_pairs, scenes
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import evaluate
from rvelens.interventions.methods import make_method

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("RVELENS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium on this machine: install one (apt-get install chromium) or name it in "
        "RVELENS_CHROMIUM",
    ),
    pytest.mark.xdist_group("browser"),
]
STICKING_OUT = """e => [...e.querySelectorAll('.rv-answer, figure, .rv-map, button, .block')]
  .filter(x => x.getBoundingClientRect().right > innerWidth + 1).map(x => x.className)"""
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
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """A run, a file of pairs with pictures, and files that are no images."""
    folder = tmp_path_factory.mktemp("browser")
    loaded = models.get("rvelens/tiny")
    made = [make_method(name, loaded.model, loaded.profile) for name in ("vanilla", "rve")]
    benchmark = load_benchmark("action-scenes", n=40)
    evaluate(loaded.model, [benchmark], made, folder / "run", batch_size=20)
    rows = []
    for n, pair in enumerate(scene_pairs()[:3]):
        pair.image.save(folder / f"{n}.png")
        texts = {"question": pair.question, "contrastive": pair.contrastive}
        rows.append({"id": f"pair-{n}", "image": f"{n}.png", **texts})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.png").write_text("no image")
    Image.fromarray(np.zeros((7500, 8000), dtype=np.uint8)).save(folder / "large.png")
    return folder


@pytest.fixture(scope="module")
def address(models):
    with served(models, models.choose("rvelens/tiny")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address, request):
    """A fresh page; a request to anywhere else, or an error of the page's own, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    elsewhere, errors = [], []
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith((address.partition("?")[0], "data:", "blob:"))
            else elsewhere.append(r.url)
        ),
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    arrive(page, address)
    yield page
    keep(page, request.node.name)
    context.close()
    assert elsewhere == []
    assert errors == []


def arrive(page, address):
    """Open the page and wait until nothing is under way on it."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("html[data-rv-ready]").wait_for()
    page.locator(".rv-map button").first.wait_for(state="attached")  # the load events' work
    expect(page.locator("#ask-answers .rv-answer, #ask-problem .rv-message").first).to_be_attached()
    expect(page.locator("#about")).to_contain_text("layers")


def keep(page, name):
    """A screenshot, where some are wanted."""
    folder = os.environ.get("RVELENS_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def field(page, name):
    return page.locator(f"#{name} :is(textarea, input)").first


def put(page, name, text):
    """Type into a field, once it has no other work to show."""
    field(page, name).fill(text)
    expect(field(page, name)).to_have_value(text)


def panel(page, name):
    page.get_by_role("tab", name=name).click()
    expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    return page.locator("[role=tabpanel]:visible")


def scene(page, n, name, text):
    """Choose a scene, and wait until its question and its picture are there."""
    page.locator(f'[role=tabpanel]:visible [data-scene="{n}"]').click()
    expect(field(page, name)).to_have_value(text)
    expect(page.locator("[role=tabpanel]:visible .rv-picture img").first).to_be_visible()


def ask(page):
    page.locator("#ask").click()


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


def slide(page, name, value):
    """Move a slider as a finger would, with both of its events."""
    page.locator(f'[data-slide="{name}"]').evaluate(
        """(slider, value) => { slider.value = value;
        for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind, {bubbles: true}));
        }""",
        str(value),
    )


def shown_steps(page):
    figures = page.locator(".rv-columns figure:visible")
    return [figures.nth(n).get_attribute("data-step") for n in range(figures.count())]


def test_a_word_shows_where_it_looked(page):
    """By mouse, keyboard, finger and slider."""
    words = page.locator(".rv-answer").first.locator(".rv-words button")
    assert shown_steps(page) == ["0"] * 3
    words.nth(1).hover()
    expect(words.nth(1)).to_have_class("on rv-end")
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


def test_an_address_with_mistakes_says_so(browser, address):
    page = browser.new_context().new_page()
    arrive(page, f"{address}&scene=99")
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(3)
    page.context.close()


def saved(page, button):
    with page.expect_download() as wait:
        page.get_by_role("button", name=button).click()
    return wait.value.suggested_filename, Path(wait.value.path()).read_bytes()


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
        "region: layers 2-5, beta 1.0, region [48.0, 67.0, 72.0, 86.0]"
    )
    expect(page.locator(".rv-answer").nth(2)).to_contain_text("region")
    expect(page.locator(".rv-shot .rv-region").first).to_be_attached()
    assert "region.box=48%2C67%2C72%2C86" in page.url


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
    page.locator('[data-head="3.5"]').click()
    expect(field(page, "chosen")).to_have_value("3.5")
    page.locator("#without").click()
    expect(page.locator("#heads-answers .rv-answer")).to_have_count(4)
    page.get_by_role("button", name="Another model or head profile").click()
    put(page, "model", str(Path(rvelens.__file__).parent / "assets/tiny"))
    page.locator("#load").click()
    expect(page.locator("#about")).to_contain_text("no head profile yet")
    for gone in ("#heads-answers .rv-answer", "#head-maps figure", ".rv-map button"):
        expect(page.locator(gone)).to_have_count(0)
    expect(field(page, "chosen")).to_have_value("")
    panel(page, "Ask")
    expect(page.locator("#ask-answers .rv-answer, #ask-pictures figure")).to_have_count(0)
    ask(page)
    expect(page.locator("#ask-problem")).to_contain_text("method 'rve' without a head profile")


def test_heads(page):
    panel(page, "Heads")
    expect(page.locator(".rv-map button")).to_have_count(6 * 12)
    scene(page, 1, "pair-question", scene_pairs()[1].question)
    expect(field(page, "pair-contrastive")).to_have_value(scene_pairs()[1].contrastive)
    page.locator('[data-head="3.5"]').click()
    maps = page.locator("#head-maps")
    expect(maps).to_contain_text("Head 5 of layer 3")
    expect(maps.locator("figure")).to_have_count(3)
    page.locator('[data-head="4.1"]').click()
    expect(field(page, "chosen")).to_have_value("3.5, 4.1")
    page.locator("#without").click()
    expect(page.locator("#heads-answers .rv-answer")).to_have_count(4)
    put(page, "chosen", "3.5, 9.9")
    page.locator("#without").click()
    expect(page.locator("#heads-problem")).to_contain_text("head 9.9 of a model of 6 layers")
    page.get_by_label("this pair").click()
    expect(page.locator('[data-head="3.5"]')).to_be_visible()
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


def decisions(file):
    return [json.loads(line).get("decision") for line in file.read_text().splitlines()]


def test_runs(page, folder):
    panel(page, "Runs")
    put(page, "run-folder", str(folder))
    page.locator("#run-open").click()
    expect(page.locator("#run-problem")).to_contain_text(
        "is not a run: expected a folder with a report.json of `rvelens eval`"
    )
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


def test_people_wait_for_one_another(page, browser, address, models):
    other = browser.new_context().new_page()
    arrive(other, address)
    for one in (page, other):
        scene(one, 2, "ask-question", scenes()[2].text)
    held = threading.Event()
    let_go = threading.Event()

    def hold():
        with models.lock:
            held.set()
            let_go.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    for one in (page, other):
        ask(one)
    page.wait_for_timeout(300)
    assert page.locator("#ask-answers .rv-answer").count() == 0
    let_go.set()
    holder.join()
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
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 24)"}[scheme]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for name in ("Ask", "Heads", "Pairs", "Runs"):
            shown = panel(page, name)
            expect(shown).to_be_visible()
            assert shown.evaluate(STICKING_OUT) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            keep(page, f"{name}-{scheme}-{width}")
    assert page.locator("footer:visible").count() == 0
    context.close()
