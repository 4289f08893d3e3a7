"""Helpers for tests that drive the explorer in a real Chromium.

`RVELENS_SCREENSHOTS` names a folder that screenshots are kept in; `RVELENS_CHROMIUM` a browser.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("RVELENS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
MARKS = [
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium on this machine: install one (apt-get install chromium) or name it in "
        "RVELENS_CHROMIUM",
    ),
    pytest.mark.xdist_group("browser"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


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


def saved(page, button):
    with page.expect_download() as wait:
        page.get_by_role("button", name=button).click()
    return wait.value.suggested_filename, Path(wait.value.path()).read_bytes()
