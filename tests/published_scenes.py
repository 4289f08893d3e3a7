"""Drawn scenes in the files of published benchmarks: a data folder that rvelens/tiny can answer."""

from __future__ import annotations

import json

from rvelens.benchmarks import load_benchmark


def write_scenes(data, n=8):
    """AMBER, POPE (random) and MMRel (real, action) with `n` questions each, and their images."""
    rows, seen = [], {}
    for number, item in enumerate(load_benchmark("action-scenes", n=n).items):
        name = seen.setdefault(item.image, f"s{len(seen)}.png")
        for folder in ("mmrel/vg", "amber/image", "val2014"):
            path = data / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            item.load().save(path)
        label = "yes" if item.truth else "no"
        rows.append({"question_id": number, "image": name, "text": item.text, "label": label})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    queries = [{"id": r["question_id"], "image": r["image"], "query": r["text"]} for r in rows]
    truths = [{"id": r["question_id"], "truth": r["label"]} for r in rows]
    for name, text in {
        "mmrel/annotations/real/action.jsonl": lines,
        "pope/coco_pope_random.json": lines,
        "amber/query_discriminative-relation.json": json.dumps(queries),
        "amber/annotations.json": json.dumps(truths),
    }.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)
    return data
