"""Rows of your own questions: CSV, JSON, parquet, pandas data frames and Hugging Face datasets."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from rvelens.benchmarks.rows import Row, read_rows
from rvelens.files.atomic import one_line
from rvelens.files.wording import kind_of_value
from rvelens.model.prompts import load_image

# Endings of files that are read.
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
# OWNER/NAME of a dataset on the Hugging Face Hub, and its split.
_DATASET = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in a cell of a data frame or a dataset, instead of a file.

    Attributes:
        key: a digest of the picture; the same key means the same pixels.
        load: opens it in RGB.
    """

    key: str
    load: Callable[[], Image.Image]


@dataclass(frozen=True, eq=False)
class Source:
    """The source of questions.

    Attributes:
        name: the name of the file or dataset, without its extension.
        rows: one for each question, malformed rows included.
        path: the file; None if the source is not a single file.
    """

    name: str
    rows: list[Row]
    path: Path | None = None


def read_source(questions: Any, image: str = "image") -> Source:
    """The rows of your own questions.

    Args:
        questions: a path; OWNER/NAME or OWNER/NAME:SPLIT of a dataset on the Hugging Face Hub, which is
            downloaded; a pandas frame; or a `datasets.Dataset`.
        image: the column of the pictures: names of files, or in data frames and datasets the pictures.

    Raises:
        ValueError: no such file or dataset, another kind of source, a file that cannot be read at all,
            or a library that is not installed.
    """
    if isinstance(questions, str | Path):
        path = Path(questions)
        named = _DATASET.fullmatch(str(questions))
        if named and not path.exists() and path.suffix not in ENDINGS:
            return _of_dataset(_downloaded(named[1], named[2]), named[1].partition("/")[2], image)
        return _of_folder(path, image) if path.is_dir() else _of_file(path, image)
    if hasattr(questions, "to_dict") and hasattr(questions, "columns"):
        return _of_frame(questions, "questions", image)
    if isinstance(questions, dict) or (
        hasattr(questions, "features") and hasattr(questions, "num_rows")
    ):
        return _of_dataset(questions, "questions", image)
    raise ValueError(
        f"questions are {kind_of_value(questions)}: expected a path, the name of a dataset, a pandas "
        "frame or a datasets.Dataset; make one of them."
    )


def _of_file(path: Path, image: str) -> Source:
    if not path.is_file():
        raise ValueError(
            f"no questions at {path}: expected a file ({', '.join(ENDINGS)}), or OWNER/NAME of a "
            "dataset on the Hugging Face Hub; check the path."
        )
    if path.suffix in (".csv", ".tsv"):
        return Source(path.stem, list(_csv_rows(path)), path)
    if path.suffix == ".parquet":
        import_library("pyarrow")
        try:
            frame = import_library("pandas").read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is not parquet ({one_line(error)}): expected a table; write it anew."
            ) from error
        return Source(path.stem, _of_frame(frame, path.name, image).rows, path)
    if path.suffix in (".json", ".jsonl"):
        return Source(path.stem, read_rows(path, path.name), path)
    raise ValueError(
        f"{path} ends in {path.suffix!r}: expected one of {', '.join(ENDINGS)}; convert the file."
    )


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows with the line that each begins at; cells are texts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            tabs = path.suffix == ".tsv"
            reader = csv.reader(opened, delimiter="\t" if tabs else ",", strict=True)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header) or not any(header):
                raise ValueError(
                    f"the header of {path} is {header}: expected a different name for each column; "
                    "correct its first line."
                )
            line = reader.line_num + 1
            for cells in reader:
                place, line = f"{path.name} line {line}", reader.line_num + 1
                if cells:
                    yield Row(path, place, _as_object(header, cells))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: expected a table; save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a table ({error}): expected fields as in CSV; look at its quotation marks."
        ) from error


def _as_object(header: list[str], cells: list[str]) -> Any:
    if len(cells) != len(header):
        return ValueError(
            f"{len(cells)} fields: expected {len(header)}, as in the first line; correct the line."
        )
    return dict(zip(header, cells, strict=True))


def _of_frame(frame: Any, name: str, image: str) -> Source:
    """Rows of a pandas frame; empty cells are None."""
    names = [str(column) for column in frame.columns]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the columns of {name} are {names}: expected a different name for each; rename some."
        )
    records = (
        dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None)
    )
    return Source(name, list(_rows(records, name, image)))


def _of_dataset(dataset: Any, name: str, image: str) -> Source:
    """Rows of a `datasets.Dataset`, whose pictures are read when they are asked about."""
    if isinstance(dataset, dict):
        if len(dataset) == 1:
            return _of_dataset(next(iter(dataset.values())), name, image)
        splits = ", ".join(map(str, dataset)) or "none"
        raise ValueError(
            f"the dataset {name} has the splits {splits}: expected one of them; name it, as in "
            f"{name}:{next(iter(dataset), 'test')}, or pass dataset[split]."
        )
    feature = import_library("datasets").Image
    if isinstance(dataset.features.get(image), feature):
        dataset = dataset.cast_column(image, feature(decode=False))
    return Source(name, list(_rows(dataset, name, image, dataset)))


def _rows(
    records: Iterable[Mapping[str, Any]], name: str, image: str, dataset: Any = None
) -> Iterator[Row]:
    for n, record in enumerate(records):
        value = {key: _plain(cell) for key, cell in record.items()}
        try:
            if image in value:
                read = None if dataset is None else partial(_cell, dataset, n, image)
                value[image] = _picture(value[image], read)
        except (ValueError, OSError) as error:
            value = ValueError(
                f"{image!r} holds no picture ({one_line(error)}): expected an image; replace it."
            )
        yield Row(Path(name), f"{name} row {n + 1}", value)


def _cell(dataset: Any, n: int, image: str) -> Any:
    return dataset[n][image]


def _plain(cell: Any) -> Any:
    """A cell as Python has it; None where it is empty."""
    if type(cell).__module__ == "numpy":
        cell = cell.tolist()
    missing = isinstance(cell, float) and math.isnan(cell)
    return None if missing or type(cell).__name__ in ("NAType", "NaTType") else cell


def _picture(cell: Any, read: Callable[[], Any] | None) -> Any:
    """The name of a file, or what a cell holds of a picture.

    Args:
        cell: a name, a path, a picture, its bytes, or {"bytes": ..., "path": ...} as datasets have it.
        read: gives the cell again, so that not all pictures of a dataset are held.
    """
    if isinstance(cell, Path):
        return str(cell)
    if isinstance(cell, Image.Image):
        digest = hashlib.sha256(f"{cell.mode}{cell.size}".encode() + cell.tobytes())
        return Picture(digest.hexdigest(), partial(load_image, cell))
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        key = hashlib.sha256(data).hexdigest()
        again = partial(_decoded_again, read) if read else partial(_decoded, data)
        return Picture(key, again)
    return cell.get("path") if isinstance(cell, dict) else cell


def _decoded(data: bytes) -> Image.Image:
    return load_image(BytesIO(data))


def _decoded_again(read: Callable[[], Any]) -> Image.Image:
    cell = read()
    return _decoded(cell["bytes"] if isinstance(cell, dict) else cell)


def _of_folder(path: Path, image: str) -> Source:
    """A dataset that `save_to_disk` wrote."""
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise ValueError(
            f"{path} is a folder: expected a file ({', '.join(ENDINGS)}), or a folder that a dataset's "
            "save_to_disk wrote; name the file."
        )
    return _of_dataset(import_library("datasets").load_from_disk(str(path)), path.name, image)


def _downloaded(name: str, split: str | None) -> Any:
    """A dataset of the Hugging Face Hub."""
    datasets = import_library("datasets")
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises dozens of kinds
        raise ValueError(
            f"no file {name}, and no dataset that can be loaded ({one_line(error)[:160]}): expected a "
            f"file ({', '.join(ENDINGS)}) or OWNER/NAME:SPLIT on the Hugging Face Hub; check the name."
        ) from error


def import_library(name: str) -> Any:
    """Import an optional library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"no library {name}: expected it for these questions; run pip install 'rvelens[data]'."
        ) from error
