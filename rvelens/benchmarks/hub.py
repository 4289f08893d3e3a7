"""Benchmarks with their images, from copies on the Hugging Face Hub.

This is used only if the data folder is "hub". A copy is pinned to one commit. It is downloaded once
into the cache of huggingface_hub, and read from there without a network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import sha256
from rvelens.benchmarks.pope import N_PUBLISHED
from rvelens.benchmarks.published import sources
from rvelens.benchmarks.rows import Row, collect
from rvelens.benchmarks.sources import import_library
from rvelens.model.prompts import load_image

HUB = "hub"
_OF = re.compile(r"-of-(\d+)\.parquet$")


@dataclass(frozen=True)
class Copy:
    """A dataset repository with the rows and images of a benchmark.

    Attributes:
        repository: OWNER/NAME.
        revision: the commit to read.
        files: a pattern of its parquet files.
    """

    repository: str
    revision: str
    files: str


# https://huggingface.co/datasets/lmms-lab/POPE/tree/4db1276663dfa5eb8ad16a52d24c31a09e470896, whose
# part "Full" has a split for each way to choose absent objects.
_POPE = ("lmms-lab/POPE", "4db1276663dfa5eb8ad16a52d24c31a09e470896")
COPIES: Mapping[str, Copy] = {
    f"pope-{split}": Copy(*_POPE, f"Full/{split}*.parquet")
    for split in ("random", "popular", "adversarial")
}
# Copies that nobody who made the benchmark looks after; they are named and not read.
ELSEWHERE: Mapping[str, str] = {"amber": "qgallouedec/amber (discriminative, with images)"}


def load_from_hub(name: str) -> Benchmark:
    """A benchmark from its copy on the Hub.

    Args:
        name: one of `rvelens.benchmarks.BENCHMARKS`.

    Raises:
        ValueError: there is no supported copy, and the message names the archives to download; or the
            Hub cannot be reached and the files are not in the cache; or there are no usable rows.
    """
    if name not in COPIES:
        other = next((text for part, text in ELSEWHERE.items() if name.startswith(part)), "none")
        archives = "; ".join(map(str, sources(name)))
        raise ValueError(
            f"{name} has no copy on the Hub that is read (others': {other}): expected data (--data), a "
            f"folder with its files; get them: {archives}."
        )
    copy = COPIES[name]
    return read_copy(name, copy, fetch(copy))


def fetch(copy: Copy) -> list[Path]:
    """The parquet files of a copy, downloaded if they are not in the cache.

    Raises:
        ValueError: the Hub cannot be reached or has no such files.
    """
    request: dict[str, Any] = {
        "repo_id": copy.repository,
        "repo_type": "dataset",
        "revision": copy.revision,
        "allow_patterns": [copy.files],
    }
    try:
        cached = _whole(
            Path(huggingface_hub.snapshot_download(**request, local_files_only=True)), copy
        )
        if cached:
            return cached
    except (OSError, ValueError):  # nothing of this commit is in the cache
        pass
    try:
        fetched = _whole(Path(huggingface_hub.snapshot_download(**request)), copy)
    except (OSError, ValueError, HfHubHTTPError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".:")
        raise ValueError(
            f"{copy.repository} cannot be fetched from the Hub ({first}): expected a network, or the "
            "files in its cache; run it once where there is one, or name a folder as data (--data)."
        ) from error
    if not fetched:
        raise ValueError(
            f"{copy.repository} at {copy.revision[:7]} has no whole {copy.files}: expected its parquet "
            "files; name a folder as data (--data) instead."
        )
    return fetched


def _whole(folder: Path, copy: Copy) -> list[Path]:
    """The files of a copy in a snapshot; none where one of several numbered ones lacks."""
    paths = sorted(folder.glob(copy.files)) or sorted(
        folder.glob(f"{copy.files.removesuffix('*.parquet')}/*.parquet")
    )
    counts = {int(match[1]) for path in paths if (match := _OF.search(path.name))}
    return paths if counts <= {len(paths)} else []


def read_copy(name: str, copy: Copy, files: Sequence[Path]) -> Benchmark:
    """POPE's questions in parquet files.

    Their columns are question_id, question, answer, image_source and image; others are ignored.

    Args:
        name: the name of the benchmark.
        copy: the copy of the files.
        files: the files of one split, in order.

    Raises:
        ValueError: the package datasets is not installed, or a file is not parquet or lacks a column.
    """
    rows = _rows(files)
    columns = {"question_id", "question", "answer", "image_source", "image"}
    if lacking := sorted(columns - set(rows.column_names)):
        raise ValueError(
            f"{copy.repository} has no column {', '.join(lacking)}, only "
            f"{', '.join(rows.column_names)}: expected those of POPE; name a folder as data "
            "(--data) instead."
        )
    texts = rows.remove_columns(["image"])
    numbered = [
        Row(files[0], f"{copy.repository} row {n + 1}", {**text, "number": n})
        for n, text in enumerate(texts)
    ]
    items, problems = collect(numbered, lambda row: _item(rows, row))
    return Benchmark(
        name, items, problems, rules.pope,
        {f"{copy.repository}@{copy.revision}/{path.name}": sha256(path) for path in files},
        published=N_PUBLISHED,
    )  # fmt: skip


def _rows(files: Sequence[Path]) -> Any:
    datasets = import_library("datasets")
    from datasets.exceptions import DatasetGenerationError

    try:
        rows = datasets.Dataset.from_parquet([str(path) for path in files])
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise ValueError(
            f"{files[0]} cannot be read as parquet: expected the published file; remove it from the "
            "cache, and run the command again."
        ) from error
    if "image" in rows.column_names:  # decoded where it is asked about, as other files are
        rows = rows.cast_column("image", datasets.Image(decode=False))
    return rows


def _item(rows: Any, row: Row) -> Item:
    source = row.text("image_source")
    # As POPE's own files and COCO spell it.
    name = source if source.endswith(".jpg") else f"{source}.jpg"
    return Item(
        id=row.id("question_id"),
        image=name,
        source=name,
        text=row.text("question"),
        truth=row.truth("answer"),
        reference=None,
        group="",
        load=partial(_picture, rows, row.value["number"], name),
    )


def _picture(rows: Any, number: int, name: str) -> Image.Image:
    """The image of a row, in RGB; ValueError where there is none that can be read."""
    content = (rows[number]["image"] or {}).get("bytes")
    if not content:
        raise ValueError(
            f"row {number + 1} has no bytes of {name}: expected an image; fetch it again."
        )
    file = BytesIO(content)
    file.name = f"row {number + 1}: {name}"  # what errors call it
    return load_image(file, upright=False)
