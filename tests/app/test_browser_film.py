"""The moving picture of the explorer in the documentation: made here, of screenshots.

With `RVELENS_SCREENSHOTS` it is explorer.webp in that folder; copy it to docs/images.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from browsing import MARKS, arrive, ask, field, panel, scene, slide
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from rvelens.app.shared import scenes

pytestmark = MARKS
WIDTH, HEIGHT = 1120, 800
MOST_BYTES = 1_500_000
# The outline of a pointer, in pixels from its tip.
POINTER = ((0, 0), (0, 20), (5, 15), (8, 23), (12, 21), (9, 14), (16, 14))


class Film:
    """Screenshots with the pointer drawn in, and how long each is shown, in milliseconds."""

    def __init__(self, page):
        self.page, self.frames, self.times = page, [], []

    def shoot(self, time=1200, at=None):
        self.page.wait_for_timeout(300)  # what Gradio fades is whole again
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if at is not None:
            tip = [(at[0] + x, at[1] + y) for x, y in POINTER]
            ImageDraw.Draw(shot).polygon(tip, fill="#1c1c1c", outline="white")
        self.frames.append(shot)
        self.times.append(time)

    def save(self, path):
        first, *others = self.frames
        first.save(
            path, save_all=True, append_images=others, duration=self.times, loop=0, quality=60,
            method=4,
        )  # fmt: skip


def middle(locator, across=0.5, down=0.5):
    box = locator.bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def point(film, locator, time=1000):
    at = middle(locator)
    film.page.mouse.move(*at)
    film.shoot(time, at)


def drag(film, start, end):
    """Press, move and let go, with a frame of each."""
    mouse = film.page.mouse
    mouse.move(*start)
    film.shoot(500, start)
    mouse.down()
    for share in (0.5, 1.0):
        at = tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))
        mouse.move(*at)
        film.shoot(350, at)
    mouse.up()


def test_the_moving_picture(browser, address, tmp_path):
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    page = context.new_page()
    arrive(page, address)
    expect(page.locator("#ask-tools")).to_contain_text("Copy as Python")
    page.evaluate("scrollTo(0, 150)")
    film = Film(page)
    film.shoot(1800)
    words = page.locator(".rv-answer").nth(1).locator(".rv-words button")
    point(film, words.nth(1))
    point(film, words.nth(0))
    for layer in (2, 4):
        slide(page, "layer", layer)
        expect(page.locator("#ask-answers")).to_contain_text(f"heads of layer {layer}")
        film.shoot(900)
    page.get_by_role("button", name="change", exact=True).click()
    expect(page.locator("#ask-answers")).to_contain_text("change against plain")
    film.shoot(1200)
    scene(page, 4, "ask-question", scenes()[4].text)
    ask(page)
    expect(page.locator("#ask-answers .rv-answer")).to_have_count(3)
    page.evaluate("scrollTo(0, 150)")
    film.shoot(1200)
    page.get_by_role("button", name="Draw a region").click()
    shot = page.locator(".rv-columns figure:visible .rv-shot").first
    drag(film, middle(shot, 0.57, 0.33), middle(shot, 0.78, 0.52))
    expect(page.locator("#ask-answers")).to_contain_text("region: layers")
    film.shoot(1800)
    panel(page, "Heads")
    expect(page.locator("#head-maps figure")).to_have_count(3)
    page.evaluate("scrollTo(0, 150)")
    drag(
        film,
        middle(page.locator('.rv-map [data-head="2.3"]')),
        middle(page.locator('.rv-map [data-head="4.7"]')),
    )
    expect(field(page, "chosen")).to_have_value(re.compile("2.3, .*4.7"))
    page.locator("#without").click()
    expect(page.locator("#heads-answers .rv-answer")).to_have_count(4)
    page.locator("#heads-answers").scroll_into_view_if_needed()
    film.shoot(1800)
    panel(page, "Runs")
    expect(page.locator("#run-cases img").first).to_be_visible()
    page.evaluate("scrollTo(0, 150)")
    film.shoot(1800)
    context.close()
    folder = Path(os.environ.get("RVELENS_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    film.save(folder / "explorer.webp")
    assert (folder / "explorer.webp").stat().st_size < MOST_BYTES
    with Image.open(folder / "explorer.webp") as moving:
        assert (moving.n_frames, moving.size) == (len(film.frames), (WIDTH, HEIGHT))
