"""Stage 3: a person accepts, edits or rejects pairs; each decision is saved at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import locked, write_bytes
from rvelens.files.wording import counted
from rvelens.heads.pair import swapped_word
from rvelens.pairs.file import ACCEPTED, EDITED, REJECTED, read_pair_rows

# What a person does, to what the file then says.
DECIDE = {"accept": ACCEPTED, "edit": EDITED, "reject": REJECTED}

# The object of a line, with "id", "contrastive" and "decision" filled in.
ReviewRow = dict[str, Any]
Span = tuple[int, int]


@refuse_wrong_types
def read_reviewed(path: str | Path) -> list[ReviewRow]:
    """All pairs of a file, decided or not, in their order.

    Raises:
        ValueError: no such file, no pairs, or a malformed line, which the message names.
    """
    return [{"decision": None, **row} for _, row in read_pair_rows(path)]


def pending(rows: Sequence[ReviewRow]) -> list[ReviewRow]:
    """The pairs without a decision."""
    return [row for row in rows if row["decision"] is None]


def marks(row: ReviewRow) -> tuple[Span, Span] | None:
    """Start and end of the verb in the question and in the contrastive text.

    None if the texts differ in more than one word.
    """
    try:
        start, end, other = swapped_word(row["question"], row["contrastive"])
    except ValueError:
        return None
    return (start, end), (start, start + len(other))


@refuse_wrong_types
def decide(path: str | Path, id: str, decision: str, text: str | None = None) -> ReviewRow:
    """Write a decision to the file, which is replaced as a whole; no other line changes.

    Args:
        path: the file of pairs.
        id: the pair's.
        decision: "accept", "edit" or "reject"; a later decision replaces an earlier one.
        text: the new contrastive text for "edit"; the old text is stored as "proposed".

    Returns:
        the changed pair.

    Raises:
        ValueError: an unknown decision, no pair or several pairs with this id, a text without "edit",
            or a text that differs from the question in more than one word.
    """
    if decision not in DECIDE:
        raise ValueError(f"decision {decision!r}: expected one of {', '.join(DECIDE)}; choose one.")
    if (decision == "edit") != (text is not None):
        raise ValueError(
            f"decision {decision!r} {'without a' if text is None else 'with a'} text: expected a "
            "text only with 'edit'; correct one of them."
        )
    path = Path(path)
    with changing(path):
        matches = [(number, row) for number, row in read_pair_rows(path) if row["id"] == id]
        if len(matches) != 1:
            raise ValueError(
                f"{path} has {counted(len(matches), 'pair')} of id {id!r}: expected "
                "exactly one; correct the "
                "ids."
            )
        number, row = matches[0]
        _replace_line(path, number, _decided(row, decision, text))
    return row


def _decided(row: ReviewRow, decision: str, text: str | None) -> ReviewRow:
    if text is not None:
        swapped_word(row["question"], text)
        row.setdefault("proposed", row["contrastive"])
        row["contrastive"] = text
    row["decision"] = DECIDE[decision]
    return row


def _replace_line(path: Path, number: int, row: ReviewRow) -> None:
    lines = path.read_bytes().split(b"\n")
    end = b"\r" if lines[number - 1].endswith(b"\r") else b""
    lines[number - 1] = json.dumps(row, ensure_ascii=False).encode() + end
    write_bytes(path, b"\n".join(lines))


def changing(path: Path) -> AbstractContextManager[None]:
    """Wait for the lock that a process needs to change a file of pairs; its file is named .lock."""
    return locked(path.with_name(f"{path.name}.lock"), path, wait=True)
