"""Test questions that are also in contrastive pairs, so that a ranking of heads has seen them.

The published pairs are questions about MMRel's real images. The rows of the public excerpt have the
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
    """The benchmark without the questions in a file of pairs.

    A question is left out if a pair has its id, or the file name of its image and its text. Either text
    of a pair counts. Letter case, spaces and punctuation are ignored.

    Args:
        benchmark: the questions.
        pairs: a file that `rvelens.pairs.load_pairs` reads; its images are not needed.

    Returns:
        the other questions; `left_out` is the number of removed questions.

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
    """Notes for a report about rankings that have seen test questions.

    Args:
        benchmarks: the benchmarks of the report.
        rankings: names of published rankings by their digest.
        used: the digest of RVE's ranking; None without RVE.
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
