"""Your own questions as a benchmark, from a file, a data frame or a dataset."""

from __future__ import annotations

import difflib
import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import Folder, photograph, sha256
from rvelens.benchmarks.rows import Row, collect, yes_or_no
from rvelens.benchmarks.sources import Picture, Source, read_source
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.paths import slug
from rvelens.files.wording import counted
from rvelens.tokens.grid import Box

# What a row may hold; the first two must be there, and labels unless a judge scores.
COLUMNS = ("image", "question", "label", "id", "group", "box")
RULES = ("auto", *rules.YES_NO, "choice", *rules.TEXT, "judge")


@dataclass(frozen=True)
class Spelling:
    """How a caller writes the options that messages advise.

    Attributes:
        column: another name of a column, with {} for what the column holds.
        rule: a rule, with {} for its name.
    """

    column: str
    rule: str


IN_PYTHON = Spelling("columns={{'{}': COLUMN}}", "rule='{}'")
ON_COMMAND_LINE = Spelling("--column {}=COLUMN", "--rule {}")
# If this share of the labels is of one kind, the other labels are malformed.
_MOST = 0.9


@refuse_wrong_types
def load_questions(
    questions: Any,
    images: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    rule: str = "auto",
    name: str | None = None,
) -> Benchmark:
    """Your own questions, of the same type as a published benchmark; warns of rows left out.

    A row has these columns. Other columns go into `Item.extra`:

    | column | holds |
    |---|---|
    | image | the name of a file below `images`; in frames and datasets also the picture |
    | question | the text that is asked |
    | label | the right answer: yes or no, one of several, or free text |
    | id | optional; by default the number of the line or row |
    | group | optional; accuracy is also reported by group |
    | box | optional: x0, y0, x1, y1 in pixels, the region that shows the answer; a text or numbers |

    With `rule="auto"` the rule depends on the labels. If at least 9 of 10 are yes or no, it is strict.
    If there are at most half as many different labels as rows, it is choice. Otherwise it is contains.

    Args:
        questions: a file (.csv, .tsv, .json, .jsonl, .parquet), OWNER/NAME:SPLIT of a dataset on the
            Hugging Face Hub, a folder of `save_to_disk`, a pandas frame, or a `datasets.Dataset`.
        images: the folder with the pictures, at any depth. Without it, names are paths relative to the
            folder of the file, or for a data frame to the current folder.
        columns: names of columns that differ, such as {"label": "answer"}.
        rule: one of `RULES`; or "choice:red,green", which lists the choices, if the labels do not have
            all.
        name: the name of the benchmark; by default that of the file or dataset, or "questions" for a
            data frame.

    Raises:
        ValueError: no such file, folder, column or rule, no usable row, or a library that is not
            installed. A malformed row is not an error, but one of the benchmark's `problems`, with its
            line.
    """
    benchmark = read_questions(questions, images, columns=columns, rule=rule, name=name)
    warn_of_left_out(benchmark)
    return benchmark


def warn_of_left_out(benchmark: Benchmark) -> None:
    """Warn of rows that were left out; the warning points at the line of the user's call."""
    n = len(benchmark.problems)
    if n:
        warnings.warn(
            f"{benchmark.name}: {counted(n, 'row')} left out, the first for this reason: "
            f"{benchmark.problems[0].rstrip('.')}; `problems` of the benchmark lists all.",
            stacklevel=4,  # of the function that the user called, which checks its arguments
        )


def read_questions(
    questions: Any,
    images: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    rule: str = "auto",
    name: str | None = None,
    spelling: Spelling = IN_PYTHON,
) -> Benchmark:
    """`load_questions` without the warning; the caller reports the rows that were left out.

    Args:
        questions, images, columns, rule, name: as there.
        spelling: how messages write the options.
    """
    named = _named(columns or {})
    chosen, _, choices = rule.partition(":")
    if chosen not in RULES or (choices and chosen != "choice"):
        raise ValueError(
            f"rule {rule!r}: expected one of {', '.join(RULES)}, or choice:A,B; pass one of them."
        )
    source = read_source(questions, named["image"])
    _check_columns(source, named, chosen, spelling)
    folder = None if images is None else Folder.scan(Path(images), source.name)
    if chosen == "auto":
        chosen = _rule_of(source, named["label"], spelling)
    items, problems = collect(source.rows, lambda row: _item(row, folder, named, chosen))
    if not items:
        first = problems[0] if problems else "it has no rows"
        raise ValueError(f"{source.name} has no usable question: expected at least one; {first}")
    labels = tuple(dict.fromkeys(item.reference for item in items if item.reference is not None))
    listed = tuple(word.strip() for word in choices.split(",") if word.strip())
    is_yes_no = chosen in rules.YES_NO
    matches = {**rules.TEXT, "choice": rules.ChoiceRule(listed or labels)}.get(chosen)
    return Benchmark(
        slug(name or source.name),
        items,
        problems,
        rules.YES_NO[chosen] if is_yes_no else rules.judged,
        _digests(source, items),
        positives=("yes",) if is_yes_no else (),
        matches=matches,
        rule_name=chosen,
    )


@refuse_wrong_types
def describe_source(benchmark: Benchmark) -> str:
    """A summary: the number of questions, their pictures, and the rule for their answers."""
    images = len({item.image for item in benchmark.items})
    labels = Counter(item.label for item in benchmark.items)
    shown = ", ".join(f"{n} {label}" for label, n in labels.most_common(4))
    counts = f" ({shown})" if len(labels) <= 4 and None not in labels else ""
    rule = benchmark.matches or benchmark.rule
    how = "scored by `rvelens judge`" if benchmark.rule_name == "judge" else rules.about(rule)
    n_questions = counted(len(benchmark.items), "question")
    return (
        f"{benchmark.name}: {n_questions} about {counted(images, 'image')}{counts}; rule "
        f"{benchmark.rule_name}: {how}"
    )


def _named(columns: Mapping[str, str]) -> dict[str, str]:
    """What each of `COLUMNS` is called."""
    for column in columns:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"column {column!r}: expected one of {', '.join(COLUMNS)}; did you mean {near!r}?"
            )
    return {column: columns.get(column, column) for column in COLUMNS}


def _check_columns(source: Source, named: Mapping[str, str], rule: str, spelling: Spelling) -> None:
    """Raise ValueError where a column that is needed, or was named, is in no row."""
    row_keys = {key for row in source.rows if isinstance(row.value, dict) for key in row.value}
    needed = COLUMNS[:2] if rule == "judge" else COLUMNS[:3]
    for column, name in named.items():
        if name in row_keys or (column not in needed and name == column) or not row_keys:
            continue
        hint = (
            f"; without labels, pass {spelling.rule.format('judge')}" if column == "label" else ""
        )
        raise ValueError(
            f"{source.name} has no column {name!r}: expected the {column} there, and it has "
            f"{', '.join(map(str, sorted(row_keys, key=str)))}; name it by "
            f"{spelling.column.format(column)}{hint}."
        )


# Names of yes and no in tables. No answer of a model matches them, so all of them would be unparsed.
_OTHER_NAMES = (("0", "1"), ("0.0", "1.0"), ("false", "true"), ("f", "t"), ("n", "y"))


def _rule_of(source: Source, label: str, spelling: Spelling) -> str:
    """The rule that fits the labels."""
    rows = [row.value for row in source.rows if isinstance(row.value, dict)]
    texts = [text for row in rows if (text := _text(row.get(label)))]
    if sum(_is_yes_no(text) for text in texts) >= _MOST * len(texts):
        return "strict"
    labels = {text.strip().casefold() for text in texts}
    if any(labels and labels <= set(names) for names in _OTHER_NAMES):
        raise ValueError(
            f"{source.name}: all labels are {' and '.join(sorted(labels))}: expected yes and no where "
            "these are meant; write the words, or pass "
            f"{spelling.rule.format('choice')}."
        )
    different = {rules.text_words(text) for text in texts}
    return "choice" if 1 < len(different) <= len(texts) / 2 else "contains"


def _is_yes_no(text: str) -> bool:
    return rules.strict(text) is not None


def _text(label: Any) -> str:
    """A label as a text: truth values are yes and no, numbers as they are written."""
    if isinstance(label, bool):
        return "yes" if label else "no"
    return "" if label is None else str(label).strip()


def _item(row: Row, folder: Folder | None, named: Mapping[str, str], rule: str) -> Item:
    """The question of a row; ValueError if it is malformed."""
    cells = row.value
    label = _text(cells.get(named["label"]))
    is_yes_no = rule in rules.YES_NO
    if not is_yes_no and rule != "judge" and not rules.text_words(label):
        raise ValueError(
            f"{named['label']!r} is {brief(label)}: expected a label with words; correct the row."
        )
    column_names = set(named.values())
    box = _box(cells.get(named["box"]), named["box"])
    has_id = cells.get(named["id"]) not in (None, "")
    return _shown(
        _picture(row, folder, named["image"]),
        id=row.id(named["id"]) if has_id else row.place.rpartition(" ")[2],
        text=row.text(named["question"]),
        truth=yes_or_no(label, named["label"]) if is_yes_no else None,
        reference=None if is_yes_no else label or None,
        group=_text(cells.get(named["group"])),
        regions=None if box is None else partial(dict, box=(box,)),
        extra={key: cell for key, cell in cells.items() if key not in column_names},
    )


def _picture(row: Row, folder: Folder | None, column: str) -> Picture | tuple[str, Path]:
    """A picture, or its name and file; ValueError where there is none."""
    cell = row.value.get(column)
    if isinstance(cell, Picture):
        return cell
    name = row.text(column)
    path = row.path.parent / name if folder is None else folder.picture(name)
    if not path.is_file():
        where = "beside the questions" if folder is None else f"below {folder.path}"
        raise ValueError(f"no image {name!r} {where}: expected a file there; correct the row.")
    return name if folder is None else folder.relative(path), path


def _shown(picture: Picture | tuple[str, Path], **rest: Any) -> Item:
    if isinstance(picture, Picture):
        return Item(image=picture.key, source=picture.key, load=picture.load, **rest)
    key, path = picture
    return photograph(path, upright=True, image=key, source=key, **rest)


def _box(cell: Any, column: str) -> Box | None:
    """Four numbers, from a text or a list; None for an empty cell."""
    if cell is None or cell == "":
        return None
    parts = cell.strip(" []()").replace(";", ",").split(",") if isinstance(cell, str) else cell
    try:
        x0, y0, x1, y1 = (float(number) for number in parts)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{column!r} is {brief(cell)}: expected four numbers; correct the row."
        ) from error
    if not (math.isfinite(x0 + y0 + x1 + y1) and 0 <= x0 < x1 and 0 <= y0 < y1):
        raise ValueError(
            f"{column!r} is {brief(cell)}: expected 0 <= x0 < x1 and 0 <= y0 < y1; correct the row."
        )
    return x0, y0, x1, y1


def _digests(source: Source, items: Sequence[Item]) -> dict[str, str]:
    """SHA-256 of the file; of a frame or a dataset, of its questions."""
    if source.path is not None:
        return {source.path.name: sha256(source.path)}
    digest = hashlib.sha256()
    for item in items:
        digest.update(ascii((item.id, item.image, item.text, item.label, item.group)).encode())
    return {source.name: digest.hexdigest()}
