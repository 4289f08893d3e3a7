"""Folders that `rvelens eval` wrote, read back: figures, and the questions whose answer flipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from rvelens.benchmarks import BENCHMARKS, Benchmark, Item, load_benchmark
from rvelens.benchmarks.action_scenes import SPLITS, draw_scene
from rvelens.benchmarks.rules import strict
from rvelens.evaluate.reports import FILE, read_report
from rvelens.evaluate.scoring import read_answers
from rvelens.evaluate.store import answer_lines, stored_answers
from rvelens.files.paths import path_below
from rvelens.files.wording import counted
from rvelens.model.prompts import load_image
from rvelens.studies.cases.study import flip
from rvelens.studies.kit.asking import select_askable

DIRECTIONS = ("both", "gained", "lost")
ALL = "all"


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


@dataclass(frozen=True)
class FlipFilter:
    """Which flips to show.

    Attributes:
        method: compared with the run's first one.
        direction: of `DIRECTIONS`.
        group: a group's name, or `ALL`.
        text: a part of the question, the id or an answer, in any case.
    """

    benchmark: str
    method: str
    direction: str = "both"
    group: str = ALL
    text: str = ""


def open_run(folder: str, data: str = "") -> OpenedRun:
    """Read a run.

    Args:
        folder: `--out` of `rvelens eval`.
        data: the folder of the benchmarks' files, for their pictures; "" for none.

    Raises:
        ValueError: not the folder of a finished run, or a folder of files that is none.
    """
    path = Path(folder.strip()).expanduser()
    if not folder.strip():
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
    pictures = Path(data.strip()).expanduser() if data.strip() else None
    if pictures is not None and not pictures.is_dir():
        raise ValueError(
            f"no folder {pictures}: expected the folder with the benchmarks' files; check the path."
        )
    items = {name: _items(path / name / first, name, pictures) for name in names}
    return OpenedRun(path, report, pictures, items)


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
    if data is not None and (path := path_below(data, image)).is_file():
        return partial(load_image, path)
    split, _, seed = image.rpartition("-")
    if split in SPLITS and seed.isdigit():
        return lambda: draw_scene(int(seed), split).image

    def unknown() -> Image.Image:
        raise ValueError(
            f"the folder of the image {image} is unknown: expected the folder with the benchmark's "
            "files; enter it above."
        )

    return unknown


@lru_cache(maxsize=8)
def flips(run: OpenedRun, benchmark: str, method: str) -> list[dict[str, Any]]:
    """Questions that the run's first method and another answer differently in being right.

    Right and wrong are told by the strict rule, whatever the benchmark's own.

    Kept for the next filter or search, since reading 50,000 answers takes seconds.

    Raises:
        ValueError: a benchmark or method that is not of this run, or torn or missing answers.
    """
    first = run.methods[0]
    if benchmark not in run.items or method not in run.methods or method == first:
        raise ValueError(
            f"flips of {method!r} on {benchmark!r}: expected a benchmark of {', '.join(run.items)} "
            f"and a method of {', '.join(run.methods[1:]) or 'none'}; choose from these."
        )
    items = tuple(run.items[benchmark].values())
    answers = {name: _whole(run, benchmark, name) for name in (first, method)}
    whole = Benchmark(benchmark, items, (), strict, {})
    numbers = select_askable(whole, answers)
    was, now = (
        read_answers(whole, answers[name], numbers, strict).right for name in (first, method)
    )
    return [
        flip(items[n], answers[first][items[n].id], answers[method][items[n].id], bool(right))
        for n, wrong, right in zip(numbers, ~was, now, strict=True)
        if wrong == right
    ]


def _whole(run: OpenedRun, benchmark: str, method: str) -> dict[str, Any]:
    """A method's answers, all that the report counts."""
    answers = stored_answers(run.folder / benchmark / method, tuple(run.items[benchmark].values()))
    rules = run.report["benchmarks"][benchmark]["rules"]
    in_report = sum(next(iter(rules.values()))["methods"][method]["cells"].values())
    if len(answers) < in_report:
        raise ValueError(
            f"{run.folder / benchmark / method} holds {counted(len(answers), 'answer')}: "
            f"expected the {in_report} of the run's report; run the same `rvelens eval` again to "
            "resume."
        )
    return dict(answers)


def matching(flipped: Sequence[Mapping[str, Any]], criteria: FlipFilter) -> list[Mapping[str, Any]]:
    """The flips that fit direction, group and text."""
    text = criteria.text.strip().casefold()

    def fits(row: Mapping[str, Any]) -> bool:
        words = (row["id"], row["question"], row["before"]["answer"], row["after"]["answer"])
        return (
            criteria.direction in ("both", row["direction"])
            and criteria.group in (ALL, row["group"])
            and any(text in (word or "").casefold() for word in words)
        )

    return [item for item in flipped if fits(item)]


def groups(flipped: Sequence[Mapping[str, Any]]) -> list[str]:
    """`ALL`, and the groups of some flips."""
    return [ALL, *sorted({item["group"] for item in flipped if item["group"]})]
