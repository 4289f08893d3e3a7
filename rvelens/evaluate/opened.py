"""Folders that `rvelens eval` wrote, read back: the report, and the questions with their pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from rvelens.benchmarks import BENCHMARKS, Item, load_benchmark
from rvelens.benchmarks.action_scenes import SPLITS, draw_scene
from rvelens.evaluate.reports import FILE, read_report
from rvelens.evaluate.store import answer_lines
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.paths import path_below
from rvelens.model.prompts import load_image


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A finished evaluation.

    Attributes:
        report: what `rvelens eval` reported.
        data: the folder of the benchmarks' pictures; None if it was not named.
    """

    folder: Path
    report: Mapping[str, Any]
    data: Path | None
    items: Mapping[str, Mapping[str, Item]] = field(repr=False)

    @property
    def benchmarks(self) -> list[str]:
        """Names of the benchmarks with yes/no questions."""
        return _closed(self.report)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, the one that the others are compared with first."""
        return list(self.report["methods"])


@refuse_wrong_types
def open_run(folder: str | Path, data: str | Path = "") -> OpenedRun:
    """Read a run.

    Args:
        folder: `--out` of `rvelens eval`.
        data: the folder of the benchmarks' files, for their pictures; "" for none.

    Raises:
        ValueError: not the folder of a finished run, or a folder of files that is none.
    """
    path = Path(os.path.expanduser(str(folder).strip()))
    if not str(folder).strip():
        raise ValueError(
            "no folder is given: expected the folder of `rvelens eval --out`; enter its path."
        )
    stored = read_report(path)
    if stored is None:
        raise ValueError(
            f"{path} is not a run: expected a folder with a report.json of `rvelens eval`; enter "
            "the folder given as --out."
        )
    report = stored.model_dump()
    _check_names(path, report)
    names, first = _closed(report), next(iter(report["methods"]))
    pictures = Path(os.path.expanduser(str(data).strip())) if str(data).strip() else None
    if pictures is not None and not pictures.is_dir():
        raise ValueError(
            f"no folder {pictures}: expected the folder with the benchmarks' files; check the path."
        )
    items = {name: _items(path / name / first, name, pictures) for name in names}
    return OpenedRun(path, report, pictures, items)


def strict_scores(run: OpenedRun, benchmark: str) -> tuple[Mapping[str, Mapping[str, Any]], float]:
    """Figures of every method by the strict rule, and how often yes is the right answer.

    Raises:
        ValueError: a benchmark without yes/no questions in this run.
    """
    if benchmark not in run.benchmarks:
        raise ValueError(
            f"scores of {benchmark!r}: expected a benchmark with yes/no questions of "
            f"{', '.join(run.benchmarks) or 'none'}; choose from these."
        )
    methods = run.report["benchmarks"][benchmark]["rules"]["strict"]["methods"]
    cells = next(iter(methods.values()))["cells"]
    yes = sum(n for key, n in cells.items() if key.startswith("yes_"))
    return methods, yes / max(sum(cells.values()), 1)


def _check_names(path: Path, report: Mapping[str, Any]) -> None:
    """Raise ValueError where a report names no method or model, or a folder outside of the run."""
    if not report["methods"] or not isinstance(report["model"].get("name"), str):
        raise ValueError(
            f"{path / FILE} names no method or no model: expected both; run `rvelens eval` again."
        )
    for name in (*report["benchmarks"], *report["methods"]):
        if len(path_below(path, name).relative_to(path).parts) != 1:
            raise ValueError(
                f"{path / FILE} names {name!r}: expected a benchmark or a method; run `rvelens eval` "
                "again."
            )


def _closed(report: Mapping[str, Any]) -> list[str]:
    """Names of a report's benchmarks with yes/no questions."""
    return [
        name for name, scores in report["benchmarks"].items() if "strict" in scores.get("rules", {})
    ]


def _items(folder: Path, benchmark: str, data: Path | None) -> dict[str, Item]:
    """The questions that a run's answers are about, with pictures where they can be found."""
    published: Mapping[str, Item] = {}
    if data is not None and benchmark in BENCHMARKS and not benchmark.startswith("action-scenes"):
        published = {item.id: item for item in load_benchmark(benchmark, data).items}
    items: dict[str, Item] = {}
    for line in answer_lines(folder):
        try:
            row = line.value()
            items[row["id"]] = published.get(row["id"]) or _item(row, data)
        except (ValueError, KeyError, TypeError):
            continue  # `stored_answers` names such a line
    return items


def _item(row: Mapping[str, Any], data: Path | None) -> Item:
    truth = {"yes": True, "no": False}.get(row.get("truth", ""))
    return Item(
        row["id"], row["image"], row["image"], row["question"], truth, None, row.get("group", ""),
        _loader(row["image"], data),
    )  # fmt: skip


def _loader(image: str, data: Path | None) -> Callable[[], Image.Image]:
    """What opens a picture: of one's own data a file below its folder, or a drawn scene."""
    with suppress(ValueError):  # a picture outside of the folder is not known here
        if data is not None and (path := path_below(data, image)).is_file():
            return partial(load_image, path)
    split, _, seed = image.rpartition("-")
    if split in SPLITS and seed.isdigit():
        return lambda: draw_scene(int(seed), split).image

    def unknown() -> Image.Image:
        raise ValueError(
            f"the folder of the image {image} is unknown: expected the folder with the benchmark's "
            "files; name it where the run is opened."
        )

    return unknown
