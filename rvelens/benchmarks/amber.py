"""AMBER: is a thing there, is there direct contact between two things? (Wang et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import Folder, photograph
from rvelens.benchmarks.rows import Row, collect, yes_or_no

TRUTH = "annotations.json"
# Questions of each part.
_PUBLISHED = {"existence": 4924, "relation": 1664}


def load_amber(part: str, data: Path | None) -> Benchmark:
    """The discriminative questions of one part, "existence" or "relation".

    Files, anywhere below `data`: query_discriminative-{part}.json, the annotations.json nearest to it,
    and the images by their names, AMBER_1.jpg. A query is {"id": 13557, "image": ..., "query": ...}, an
    annotation {"id": 13557, "truth": "yes", "type": ...}. The type is not used, because "relation"
    occurs with every no and "discriminative-relation" with every yes.

    The official positive answer is *no*; both ways are counted. The answer to every existence question
    is no, because its object is not in the image. So accuracy is the share of no.

    Raises:
        ValueError: no such folder or file, or a file that cannot be read.
    """
    name = f"amber-{part}"
    folder = Folder.scan(data, name)
    query = folder.annotation(f"query_discriminative-{part}.json")
    annotations = folder.annotation(TRUTH, near=query)
    truth = _truths(folder.read(annotations))

    def make(row: Row) -> Item:
        image, id_ = row.text("image"), row.id("id")
        if id_ not in truth:
            raise ValueError(
                f"id {id_!r} is not in {TRUTH}: expected every id there; download the files again."
            )
        return photograph(
            folder.picture(image),
            id=id_,
            image=image,
            source=image,
            text=row.text("query"),
            truth=yes_or_no(truth[id_], "truth"),
            reference=None,
            group="",
        )

    items, problems = collect(folder.read(query), make)
    return Benchmark(
        name,
        items,
        problems,
        rules.amber,
        folder.digests([query, annotations]),
        positives=("no", "yes"),
        published=_PUBLISHED[part],
    )


def _truths(rows: list[Row]) -> dict[str, Any]:
    """What stands as truth under each id, for whichever task the row is."""
    truths: dict[str, Any] = {}
    for value in (row.value for row in rows):
        if isinstance(value, dict) and "truth" in value:
            name, truth = str(value.get("id")), value["truth"]
            # Two truths of one question are none: the row is then named among the problems.
            truths[name] = truth if truths.get(name, truth) == truth else "both"
    return truths
