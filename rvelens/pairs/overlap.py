"""Test questions that contrastive pairs hold as well: a ranking of heads made from them has seen these.

The published pairs are questions of MMRel's real images; those rows of them that were seen carry the
question_id of a test question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rvelens.benchmarks.base import Benchmark, Item
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.heads.profile import PUBLISHED, ARSProfile
from rvelens.pairs.file import read_pair_rows

# Benchmarks whose questions the published pairs are taken from.
OF_PUBLISHED_PAIRS = ("mmrel-real",)


@refuse_wrong_types
def without_pairs(benchmark: Benchmark, pairs: str | Path) -> Benchmark:
    """The benchmark without the questions that a file of pairs holds.

    A question is left out where a pair has its id, or its image's file name and its text. Either text
    of a pair counts; letter case, spaces and punctuation do not.

    Args:
        benchmark: the questions.
        pairs: a file that `rvelens.pairs.load_pairs` reads; its images are not needed.

    Returns:
        the other questions; `left_out` is how many are gone.

    Raises:
        ValueError: no such file or a malformed line, or no question is left.
    """
    rows = [row for _, row in read_pair_rows(pairs)]
    ids = {str(row.get("question_id", row["id"])) for row in rows}
    texts = {
        (_name(row["image"]), _words(row[key]))
        for row in rows
        for key in ("question", "contrastive")
    }
    items = [x for x in benchmark.items if not _is_held(x, ids, texts)]
    if not items:
        raise ValueError(
            f"{pairs} holds every question of {benchmark.name}: expected pairs of other questions; "
            "leave them (--without-pairs) out, or choose another benchmark."
        )
    return replace(benchmark.keep(items), left_out=len(benchmark.items) - len(items))


def _is_held(item: Item, ids: set[str], texts: set[tuple[str, tuple[str, ...]]]) -> bool:
    return item.id in ids or (_name(item.image), _words(item.text)) in texts


def _name(image: str) -> str:
    return PurePosixPath(image.replace("\\", "/")).name.lower()


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w']+", text.lower()))


def overlap_notes(
    benchmarks: Sequence[Benchmark], rankings: Mapping[str, str], used: str | None
) -> list[str]:
    """What a reader has to know of rankings that have seen test questions.

    Args:
        benchmarks: what was asked.
        rankings: names of published rankings by their digest.
        used: digest of the ranking of RVE; None without RVE.
    """
    notes: list[str] = []
    for benchmark in benchmarks:
        if benchmark.left_out is not None:
            notes.append(
                f"{benchmark.name}: {counted(benchmark.left_out, 'question')} that the "
                "given pairs hold are left "
                "out."
            )
        elif used is not None and used in rankings and benchmark.name in OF_PUBLISHED_PAIRS:
            notes.append(
                f"{benchmark.name}: the published ranking of {rankings[used]} was made from 150 pairs "
                "that are questions of this benchmark, so RVE has seen some of them. --without-pairs "
                "PAIRS.jsonl leaves these out."
            )
    return notes


def published_rankings() -> dict[str, str]:
    """Names of the published rankings by their digest."""
    return {ARSProfile.published(name).digest(): name for name in PUBLISHED}
