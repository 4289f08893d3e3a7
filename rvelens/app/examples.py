"""A run and a file of pairs to begin with, made of drawn scenes when a person first looks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rvelens.app.models import SHIPPED, Models
from rvelens.app.shared import scene_pairs
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import evaluate
from rvelens.files.atomic import write_text
from rvelens.interventions.methods import make_method
from rvelens.model.prompts import load_image

N_QUESTIONS = 40
EXAMPLE_METHODS = ("vanilla", "rve", "vaf")


def example_folder(folder: Path) -> Path:
    """Where the example's run goes below a folder."""
    return folder / "run"


def example_run(models: Models, folder: Path) -> Path:
    """The folder of a small run of the embedded model, made once for each server.

    Args:
        models: where the model is; its lock is held while it answers.
        folder: where the run goes, below.
    """
    run = example_folder(folder)
    with models.lock:
        if not (run / "report.json").is_file():
            loaded = models.get(SHIPPED)
            made = [make_method(name, loaded.model, loaded.profile) for name in EXAMPLE_METHODS]
            benchmark = load_benchmark("action-scenes", n=N_QUESTIONS)
            evaluate(loaded.model, [benchmark], made, run, batch_size=N_QUESTIONS)
    return run


def example_pairs(folder: Path) -> Path:
    """A new file of pairs with their pictures beside it; the decisions of others are not in it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="pairs-", dir=folder))
    rows = []
    for number, pair in enumerate(scene_pairs()):
        load_image(pair.image).save(own / f"{number}.png")
        row = {"id": f"scene {number}", "image": f"{number}.png"}
        rows.append(row | {"question": pair.question, "contrastive": pair.contrastive})
    file = own / "pairs.jsonl"
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file
