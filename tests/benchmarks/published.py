"""Small files in the formats of the published ones, and where the real ones are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

REAL = Path(
    os.environ.get("RVELENS_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks")
)
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the published files are not here")


def write_lines(path, rows, encoding="utf-8"):
    """JSON lines; a text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(text, encoding=encoding)
    return path


def write_array(path, rows):
    """A JSON array over several lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return path


def write_image(path, size=(60, 40), color=(128, 128, 128)):
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def pope_row(n, label="yes", image="COCO_val2014_000000310196.jpg"):
    return {
        "question_id": n,
        "image": image,
        "text": "Is there a car in the image?",
        "label": label,
    }


def instance_row(n, **changes):
    return {
        "question_id": n,
        "qtype": "Positive",
        "image": "0013ea2087020901.jpg",
        "text": "Is the man next to the woman?",
        "label": "Yes",
        "subject": "man",
        "object": "woman",
        "sub_box": [0.1, 0.2, 0.4, 0.9],
        "obj_box": [0.5, 0.2, 0.9, 0.9],
        **changes,
    }
