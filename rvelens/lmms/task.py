"""A benchmark of rvelens as a task of lmms-eval."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from lmms_eval.api.task import ConfigurableTask
from PIL import Image

from rvelens.benchmarks import Benchmark, load_benchmark
from rvelens.benchmarks.rules import strict
from rvelens.evaluate import Answer, scoring
from rvelens.evaluate.scoring import EXCHANGED, METRICS, NO_X, YES_X
from rvelens.lmms.model import NAME

DATA = "RVELENS_DATA"
_Row = Mapping[str, Any]


class BenchmarkTask(ConfigurableTask):
    """The questions of one benchmark; its YAML file names it as `dataset_name`.

    `dataset_kwargs` are the options of `rvelens.benchmarks.load_benchmark`. The files are read from
    the folder that the environment variable RVELENS_DATA names; nothing is downloaded. Questions
    come in a fixed random order of their pictures, so that `--limit` takes a fair sample and the
    questions about a picture stand side by side.

    Each name in `metric_list` is one that `figure` knows.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={k: v for k, v in config.items() if k != "class"})

    # lmms-eval tries both of these again where they fail; a file that is missing stays so.
    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:  # type: ignore
        """Read the benchmark from disk.

        Raises:
            ValueError: no folder, no files or no usable questions, or a picture that is not there.
        """
        self.benchmark = read_benchmark(str(self.config.dataset_name), dataset_kwargs or {})
        self.items = {item.id: item for item in self.benchmark.items}
        rows = [
            {
                "id": item.id,
                "image": item.image,
                "source": item.source,
                "question": item.text,
                "truth": "yes" if item.truth else "no",
                "group": item.group,
            }
            for item in self.benchmark.items
        ]
        self.dataset = self.dataset_no_image = DatasetDict({"test": Dataset.from_list(rows)})

    def doc_to_text(self, doc: _Row) -> str:
        """The question alone: what stands around it is the model's prompt."""
        return doc["question"]

    def doc_to_target(self, doc: _Row) -> str:
        """Yes or no."""
        return doc["truth"]

    def doc_to_visual(self, doc: _Row) -> list[Image.Image]:
        """The picture; raises ValueError if its file cannot be read."""
        picture = self.items[doc["id"]].load()
        picture.info[NAME] = doc["image"]
        return [picture]

    def process_results(  # type: ignore
        self, doc: _Row, results: Sequence[Any], full_docs: Any = None
    ) -> dict[str, dict[str, Any]]:
        """The answer under every metric; they are computed from all answers at the end."""
        row = {name: doc[name] for name in ("id", "source", "truth")} | {"answer": results[0]}
        official = self.benchmark.rule(results[0])
        # lmms-eval makes standard errors, plain and clustered, from a number named score.
        right = {"score": float(official == (doc["truth"] == "yes"))}
        return {n: row | (right if n == "accuracy" else {}) for n in self.aggregation()}

    def aggregation(self) -> dict[str, Any]:
        """A function of all rows for each metric that this benchmark has."""
        of_no = "no" in self.benchmark.positives
        return {
            name: partial(figure, name, self.benchmark)
            for name in (metric["metric"] for metric in self.config.metric_list)
            if (of_no or not name.endswith("_no"))
            and (self.benchmark.subsets or not name.startswith("lists_"))
        }

    def _prepare_metric_and_aggregation(self) -> None:
        """lmms-eval looks metrics up in a registry of its own; these are computed here."""
        metrics = self.config.metric_list
        self._higher_is_better = {m["metric"]: m["higher_is_better"] for m in metrics}
        self._metric_fn_list = {m["metric"]: None for m in metrics}


def read_benchmark(name: str, options: Mapping[str, Any]) -> Benchmark:
    """A benchmark whose pictures are all there, from the folder that RVELENS_DATA names.

    Returns:
        its questions in a random order of pictures, the same at each call.

    Raises:
        ValueError: no folder, no files or no usable questions, or a picture that is not there.
    """
    data = os.environ.get(DATA)
    if data is None and name != "action-scenes":
        raise ValueError(
            f"{DATA} is not set: expected the folder that holds the files of {name}; export it."
        )
    benchmark = load_benchmark(name, data, **options)
    missing = {str(path) for item in benchmark.items for path in item.files if not path.is_file()}
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} files, such as {min(missing)}: expected all of them; "
            f"`rvelens data check --benchmark {name} --data {data}` lists them."
        )
    images = list(dict.fromkeys(item.image for item in benchmark.items))
    place = dict(zip(images, np.random.default_rng(55).permutation(len(images)), strict=True))
    return benchmark.keep(sorted(benchmark.items, key=lambda item: place[item.image]))


def figure(name: str, benchmark: Benchmark, rows: Sequence[_Row]) -> float:
    """One metric of the answers, NaN where it is undefined.

    Names are those of `rvelens.evaluate.scoring.METRICS`, and "unparsed", the share of answers that
    are neither yes nor no, all under the official rule and with yes as positive; before one,
    "strict_" is the strict rule and "lists_" the mean over the published lists of ids in which it is
    defined; after one, "_no" makes no the positive answer.
    """
    rule = strict if name.startswith("strict_") else benchmark.rule
    bare = name.removeprefix("strict_").removeprefix("lists_")
    positive_no, bare = bare.endswith("_no"), bare.removesuffix("_no")
    answers = {row["id"]: Answer(row["id"], row["answer"]) for row in rows}
    indices = [n for n, item in enumerate(benchmark.items) if item.id in answers]
    cells = scoring.read_answers(benchmark, answers, indices, rule).cells
    if positive_no:
        cells = cells[:, EXCHANGED]
    if not name.startswith("lists_"):
        return _metric(bare, cells)
    ids = np.array([benchmark.items[n].id for n in indices])
    lists = [np.isin(ids, list(members)) for many in benchmark.subsets.values() for members in many]
    values = [_metric(bare, cells[mask]) for mask in lists if mask.any()]
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _metric(name: str, cells: scoring.Cells) -> float:
    total = cells.sum(axis=0)
    if name == "unparsed":
        return float((total[YES_X] + total[NO_X]) / total.sum())
    return float(METRICS[name](total))
