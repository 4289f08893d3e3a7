"""Contrastive pairs from a file with one JSON object per line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import parse_json, read_lines
from rvelens.files.paths import path_below
from rvelens.files.wording import counted, kind_of_value
from rvelens.heads.pair import ContrastivePair

# The published questions all read "Does a SUBJECT VERB a OBJECT in the image ?", one word each for
# subject and verb. Anything looser would sometimes put the verb in the place of a noun.
_VERB = re.compile(r"(\s*does (?:a|an|the) [\w'-]+ )([\w'-]+)( (?:a|an|the) .+\s*)", re.IGNORECASE)

ACCEPTED, EDITED, REJECTED = "accepted", "edited", "rejected"
# None is a pair that waits for a review.
DECISIONS = (ACCEPTED, EDITED, REJECTED, None)


@refuse_wrong_types
def replace_verb(question: str, verb: str) -> str:
    """The question with another verb, for questions such as "Does a man hold a bat in the image?".

    Raises:
        ValueError: a question of another form, whose verb this rule cannot locate.
    """
    match = _VERB.fullmatch(question)
    if match is None:
        raise ValueError(
            f"the verb of {question!r} cannot be located: expected 'Does a SUBJECT VERB a OBJECT "
            "...' with one word each for subject and verb; write the whole 'contrastive' question "
            "instead."
        )
    return f"{match[1]}{verb}{match[3]}"


@refuse_wrong_types
def load_pairs(
    path: str | Path, images: str | Path, *, reviewed: bool = False
) -> list[ContrastivePair]:
    """Read contrastive pairs from a JSON-lines file, without the pairs that a review rejected.

    Each line has "image" (a file below `images`) and "question". It also has "contrastive" (the whole
    second question) or, as in the published pairs, "answer" (the verb that replaces that of the
    question). "question_id" or "id" names the pair. "decision" is the decision of a review, see
    `rvelens.pairs.review`. Other keys are ignored.

    Args:
        path: the JSON-lines file; empty lines are skipped.
        images: the folder that holds the images.
        reviewed: take only the pairs that a review accepted or edited.

    Raises:
        ValueError: a missing file or folder, no pairs, or a malformed line, which the message names.
    """
    images = Path(images)
    if not images.is_dir():
        raise ValueError(
            f"no folder {images}: expected the folder with the pairs' images; check the path."
        )
    rows = read_pair_rows(path)
    left_out = {REJECTED, None} if reviewed else {REJECTED}
    pairs = []
    for number, row in rows:
        if row.get("decision") in left_out:
            continue
        try:
            pairs.append(_pair(row, images))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if not pairs:
        condition = "accepted or edited" if reviewed else "not rejected"
        raise ValueError(
            f"{path} holds {counted(len(rows), 'pair')}, none of them {condition}: "
            "expected at least one; review "
            "them with `rvelens pairs review`."
        )
    return pairs


def read_pair_rows(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects in a file of pairs with their line numbers, each with "id" and "contrastive".

    Raises:
        ValueError: no such file, no pairs, or a malformed line, which the message names.
    """
    rows = []
    for number, row in read_objects(path, "pair"):
        try:
            rows.append((number, _row(row, f"line {number}")))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    return rows


def read_objects(path: str | Path, noun: str) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects in a file with their line numbers; empty lines are skipped.

    Raises:
        ValueError: no such file, no object, or a line that is not a JSON object, which the message
            names.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"no {noun}s at {path}: expected a file with one JSON object per line; check the path."
        )
    rows = []
    for line in read_lines(path):
        if line.is_blank:
            continue
        try:
            row = parse_writable(line.content)
        except ValueError as error:
            raise ValueError(
                f"{line} is not JSON ({error}): expected one object per line; correct the line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{line}: {kind_of_value(row)}: expected a JSON object; correct it.")
        rows.append((line.number, row))
    if not rows:
        raise ValueError(f"{path} is empty: expected at least one {noun}; check the file.")
    return rows


def parse_writable(text: str | bytes) -> Any:
    """Parse JSON from elsewhere, and check that every text in it can be written again.

    Raises:
        ValueError: the problem, in a few words.
    """
    parsed = parse_json(text)
    try:
        # JSON can name halves of a surrogate pair, of which no UTF-8 can be made.
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a character") from error
    return parsed


def _row(row: dict[str, Any], default_id: str) -> dict[str, Any]:
    question, image = text_of(row, "question"), text_of(row, "image")
    if "contrastive" in row:
        contrastive = text_of(row, "contrastive")
    elif "answer" in row:
        contrastive = replace_verb(question, text_of(row, "answer"))
    else:
        raise ValueError(
            f"neither 'contrastive' nor 'answer' among {', '.join(row)}: expected the second "
            "question or the verb that makes it; add one of them."
        )
    if row.get("decision") not in DECISIONS:
        raise ValueError(
            f"'decision' is {row['decision']!r}: expected {ACCEPTED}, {EDITED}, {REJECTED} or "
            "null; correct the row."
        )
    name = read_id(row, default_id)
    return row | {"id": name, "image": image, "question": question, "contrastive": contrastive}


def _pair(row: dict[str, Any], images: Path) -> ContrastivePair:
    image = path_below(images, row["image"])
    if not image.is_file():
        raise ValueError(
            f"no image at {image}: expected a file in the images folder; check the path."
        )
    question, contrastive = row["question"].strip(), row["contrastive"].strip()
    return ContrastivePair(image, question, contrastive, row["id"])


def read_id(row: dict[str, Any], default: str) -> str:
    """The value of "id" or else "question_id", a text or an integer; the default if both are missing.

    Raises:
        ValueError: it is neither.
    """
    for key in ("id", "question_id"):
        value = row.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(
                f"{key!r} is {value!r}: expected a string or an integer; correct the row."
            )
        return str(value)
    return default


def text_of(row: dict[str, Any], key: str) -> str:
    """The text under a key of an object, unchanged.

    Raises:
        ValueError: it is not a text, or is empty.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {value!r}: expected a non-empty string; correct the row.")
    return value
