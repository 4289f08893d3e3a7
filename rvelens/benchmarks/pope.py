"""POPE: is an object in the image? Three ways to choose the absent ones (Li et al. 2023)."""

from __future__ import annotations

from pathlib import Path

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import Folder, photograph
from rvelens.benchmarks.rows import Row, collect

N_PUBLISHED = 3000


def load_pope(split: str, data: Path | None) -> Benchmark:
    """One split of POPE on MS-COCO.

    Files, anywhere below `data`: coco_pope_{split}.json (or .jsonl), and the images of COCO's val2014
    by their names, COCO_val2014_000000310196.jpg. A row is {"question_id": 1, "image": ..., "text": "Is
    there a snowboard in the image?", "label": "yes"}.

    Raises:
        ValueError: no such folder or file, or a file that cannot be read.
    """
    name = f"pope-{split}"
    folder = Folder.scan(data, name)
    path = folder.annotation(f"coco_pope_{split}.json", f"coco_pope_{split}.jsonl")

    def make(row: Row) -> Item:
        image = row.text("image")
        return photograph(
            folder.picture(image),
            id=row.id("question_id", "id"),
            image=image,
            source=image,
            text=row.text("text", "question"),
            truth=row.truth("label", "answer"),
            reference=None,
            group="",
        )

    items, problems = collect(folder.read(path), make)
    return Benchmark(
        name, items, problems, rules.pope, folder.digests([path]), published=N_PUBLISHED
    )
