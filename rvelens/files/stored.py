"""Files that are read back: one reader, and the declared form of what a run leaves.

Whatever a file holds, `read_stored` gives an object of the declared form, or one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rvelens.files.atomic import parse_json, read_json

MANIFEST = "manifest.json"
RUN_FORMAT = "rvelens-run-2"
# Nothing that this package writes is nested further.
_DEEPEST = 64

Schema = TypeVar("Schema")
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Texts = Mapping[str, str]


class Stored(BaseModel):
    """A form of JSON: exact types, no NaN; keys that are not declared are left aside."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class StoredModel(Stored):
    """Which model answered."""

    name: str
    revision: str | None = None
    family: str
    dtype: str
    weights: Digest
    processor: Digest | None = None
    layers: int | None = None
    heads: int | None = None


class StoredMethod(Stored):
    """A method by its name, parameters, and code or version."""

    name: str
    parameters: dict[str, Any]
    code: Digest | None = None
    version: str | None = None


class StoredDecoding(Stored):
    """How answers were generated."""

    prompt: str
    suffix: str
    max_new_tokens: int | None
    seed: int
    example: str


class RunManifest(Stored):
    """The manifest.json of answers to one benchmark under one method.

    Attributes:
        answers: names of the files of answers, in the folder of the manifest.
    """

    format: Literal["rvelens-run-2"]
    model: StoredModel
    benchmark: dict[str, Any]
    method: StoredMethod
    decoding: StoredDecoding
    versions: dict[str, str]
    answers: list[Annotated[str, Field(pattern=r"^answers(-[1-9][0-9]*)?\.jsonl$")]]


def read_stored(path: str | Path, schema: type[Schema], expected: str) -> Schema:
    """Read a JSON file of a declared form.

    Args:
        path: the file.
        schema: a `Stored`, or any type that pydantic checks.
        expected: what the error says was expected, and what to do.

    Raises:
        ValueError: it is not there, not JSON, or of another form, which is named.
    """
    try:
        return checked(read_json(Path(path), expected), schema)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ValueError(f"no file {path}: expected {expected}.") from error
    except MalformedError as error:
        raise ValueError(f"{path} cannot be read ({error}): expected {expected}.") from error


def parse_stored(text: str | bytes, schema: type[Schema]) -> Schema:
    """A JSON text of a declared form.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    return checked(parse_json(text), schema)


class MalformedError(ValueError):
    """Where a value differs from its declared form, in a few words."""


def checked(value: Any, schema: type[Schema]) -> Schema:
    """A value of JSON in its declared form.

    Raises:
        MalformedError: it has another form.
    """
    if _depth_exceeds(value, _DEEPEST):
        raise MalformedError("nested deeper than any file of this package")
    try:
        return TypeAdapter(schema).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise MalformedError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def read_run(folder: str | Path) -> RunManifest:
    """The manifest of answers to one benchmark under one method.

    Raises:
        ValueError: there is none, or it has another form.
    """
    expected = "the manifest of a run; name another folder"
    return read_stored(Path(folder) / MANIFEST, RunManifest, expected)


def answer_files(folder: str | Path) -> list[Path]:
    """The files of answers that a folder's manifest names and that are there; no others count."""
    paths = (Path(folder) / name for name in read_run(folder).answers)
    return [path for path in paths if path.is_file()]


def folder_answers(folder: str | Path) -> list[Path]:
    """The files of answers of a folder: those that its manifest names, else answers.jsonl alone."""
    if (Path(folder) / MANIFEST).exists():
        return answer_files(folder)
    alone = Path(folder) / "answers.jsonl"
    return [alone] if alone.is_file() else []
