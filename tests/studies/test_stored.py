"""What docs/studies prints is what its own files say: pages written anew from the stored numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rvelens.studies import Setup, find_study
from rvelens.studies.kit.write import study_to_markdown

FOLDER = Path(__file__).parents[2] / "docs" / "studies"
# These draw pictures of questions, so that they need the questions themselves.
PICTURES = ("attention-maps", "cases")
STORED = sorted(p for p in FOLDER.glob("*/*.json") if p.stem not in PICTURES)


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.parent.name)
def test_a_page_is_what_its_numbers_say(file):
    study, stored = find_study(file.stem), json.loads(file.read_text("utf-8"))
    # A setup without a model: what is shown comes from the file alone.
    shown = study.show(object.__new__(Setup), [model["measured"] for model in stored["models"]])
    assert study_to_markdown(study, shown) == file.with_suffix(".md").read_text("utf-8")
    assert list(shown.sentences) == stored["says"]
