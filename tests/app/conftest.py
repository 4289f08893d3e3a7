"""The explorer's models with the embedded one loaded; the explorer in a browser."""

from __future__ import annotations

import json

import numpy as np
import pytest
from browsing import CHROMIUM, FLAGS, arrive, keep
from PIL import Image
from playwright.sync_api import sync_playwright

from rvelens.app.models import Models
from rvelens.app.page import served
from rvelens.app.shared import scene_pairs
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import evaluate
from rvelens.interventions.methods import make_method


@pytest.fixture(scope="module")
def models():
    models = Models()
    models.get("rvelens/tiny")
    return models


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
