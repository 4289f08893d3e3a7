"""Contrastive pairs from a file: one JSON object a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rvelens.ars import ContrastivePair

# The published questions all read "Does a SUBJECT VERB a OBJECT in the image ?", one word each for
# subject and verb. Anything looser would sometimes put the verb in the place of a noun.
_VERB = re.compile(r"(does (?:a|an|the) [\w'-]+ )([\w'-]+)( (?:a|an|the) .+)", re.IGNORECASE)


def replace_verb(question: str, verb: str) -> str:
    """The question with another verb, for questions such as "Does a man hold a bat in the image?".

    Raises:
        ValueError: a question of another form, whose verb this rule cannot place.
    """
    match = _VERB.fullmatch(question.strip())
    if match is None:
        raise ValueError(
            f"the verb of {question!r} cannot be placed: expected 'Does a SUBJECT VERB a OBJECT ...' "
            "with one word each for subject and verb; give the whole 'contrastive' question instead."
        )
    return f"{match[1]}{verb}{match[3]}"


def load_pairs(path: str | Path, images: str | Path) -> list[ContrastivePair]:
    """Read contrastive pairs from a JSON-lines file.

    Each line has "image" (a file below `images`) and "question", and either "contrastive" (the whole
    second question) or, as in the published pairs, "answer" (the verb that takes the place of the
    question's). "question_id" or "id" names the pair; other keys are ignored.

    Args:
        path: the JSON-lines file; empty lines are skipped.
        images: the folder that holds the images.

    Raises:
        ValueError: a missing file or folder, no pairs, or a malformed line, which is named.
    """
    path, images = Path(path), Path(images)
    if not path.is_file():
        raise ValueError(f"no pairs at {path}: expected a file with one JSON object a line.")
    if not images.is_dir():
        raise ValueError(f"no folder {images}: expected the folder that holds the pairs' images.")
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            pairs.append(_pair(json.loads(line), images, f"line {number}"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} line {number} is not JSON ({error.msg}): expected one object a line."
            ) from error
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if not pairs:
        raise ValueError(f"{path} is empty: expected at least one contrastive pair.")
    return pairs


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines: it also breaks at characters that JSON allows inside a text.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: expected one JSON object a line.") from error


def _pair(row: Any, images: Path, default_id: str) -> ContrastivePair:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}: expected a JSON object.")
    image, question = _text(row, "image"), _text(row, "question")
    if "contrastive" in row:
        contrastive = _text(row, "contrastive")
    elif "answer" in row:
        contrastive = replace_verb(question, _text(row, "answer"))
    else:
        raise ValueError(
            f"neither 'contrastive' nor 'answer' among {', '.join(row)}: expected the second question "
            "or the verb that makes it."
        )
    if not (images / image).is_file():
        raise ValueError(f"no image at {images / image}: expected a file in the images folder.")
    name = str(row.get("id") or row.get("question_id") or default_id)
    return ContrastivePair(images / image, question, contrastive, name)


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {value!r}: expected a text that is not empty.")
    return value.strip()
