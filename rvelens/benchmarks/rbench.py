"""R-Bench: relations in a whole image, or between two things marked in it (Wu et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath
from reprlib import repr as brief

from PIL import Image, ImageDraw

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import Folder, photograph
from rvelens.benchmarks.relation import relation_of
from rvelens.benchmarks.rows import Row, collect
from rvelens.files.atomic import read_json
from rvelens.files.paths import path_below
from rvelens.files.wording import kind_of_value
from rvelens.model.prompts import image_formats, load_image

_PUBLISHED = {"image": 7883, "instance": 3768}
# Names of the five published id lists; the official number is the mean over them.
LISTS = {
    "image": ("nocaps_image-level_rel_ids_{}.json", "image-level_ids_{}.json"),
    "instance": ("instance-level_ids_{}.json",),
}
# How a question names its marks, and the marks themselves:
# https://github.com/mrwu-mac/R-Bench/blob/d9d73c04107d478460cadf0d7a32feec06098208/utils.py#L82-L89
MARKS = {"box": "bounding box", "mask": "mask"}
# Values of a mask's pixels, the colours laid over them, and how opaque those are of 255.
# https://github.com/mrwu-mac/R-Bench/blob/d9d73c04107d478460cadf0d7a32feec06098208/utils.py#L9
MASK_COLORS = {1: (250, 0, 45), 2: (100, 250, 0)}
MASK_ALPHA = 120

BoxLike = Sequence[float]


# How marked things are named in the text.
WORDINGS = ("words", "published")


def load_rbench(
    kind: str, data: Path | None, *, relation: str = "all", wording: str = "words"
) -> Benchmark:
    """One kind of R-Bench: "image", "instance-box" or "instance-mask".

    Files, anywhere below `data`: image-level_filterd.json or instance-level_filterd.json (with this
    spelling), the id lists nocaps_image-level_rel_ids_{1..5}.json or instance-level_ids_{1..5}.json if
    they exist, the images by their names, and for masks instance_mask/{question_id}.png. A row is
    {"question_id": 0, "qtype": "Positive", "image": "0013ea2087020901.jpg", "text": ..., "label":
    "Yes"}; instance rows add "subject", "object", "sub_box" and "obj_box" (x0, y0, x1, y1 as shares of
    width and height).

    The published files do not give the kind of a relation. So the group of a question is the result of
    `rvelens.benchmarks.relation.relation_of` for its text.

    Args:
        kind: "image", "instance-box" or "instance-mask".
        data: the folder.
        relation: "all", or only "action" or "spatial".
        wording: the wording of instance questions: "words" marks whole words, see `mark_question`;
            "published" uses the template of the published code, see `mark_as_published`.

    Raises:
        ValueError: no such folder or file, a file that cannot be read, an unknown relation or
            wording.
    """
    if wording not in WORDINGS:
        raise ValueError(
            f"wording {wording!r}: expected one of {', '.join(WORDINGS)}; pass one of them."
        )
    name = f"rbench-{kind}"
    level, _, mark = kind.partition("-")
    place = mark_as_published if wording == "published" else mark_question
    folder = Folder.scan(data, name)
    path = folder.annotation(f"{level}-level_filterd.json", f"{level}-level_filterd.jsonl")
    lists = _id_lists(folder, path, LISTS[level])
    items, problems = collect(folder.read(path), lambda row: _item(folder, row, mark, place))
    whole = Benchmark(
        name,
        items,
        problems,
        rules.rbench,
        folder.digests([path, *lists]),
        subsets={f"{level}-level": tuple(lists.values())} if lists else {},
        published=_PUBLISHED[level],
    )
    return whole.keep(whole.items).of_relation(relation)


def _id_lists(folder: Folder, near: Path, names: Sequence[str]) -> dict[Path, frozenset[str]]:
    """The published id lists that are there."""
    lists = {}
    for n in range(1, 6):
        numbered = [name.format(n) for name in names]
        if not any(folder.find(name) for name in numbered):
            continue
        path = folder.annotation(*numbered, near=near)
        lists[path] = _ids(path)
    return lists


def _ids(path: Path) -> frozenset[str]:
    ids = read_json(path, "an array of ids; get the file anew")
    if not isinstance(ids, list):
        raise ValueError(
            f"{path} holds {kind_of_value(ids)}: expected an array of ids; download the file again."
        )
    return frozenset(map(str, ids))


def _item(folder: Folder, row: Row, mark: str, place: Callable[..., str]) -> Item:
    """The question of a row; `mark` is "box", "mask" or "" for the image as it is.

    Args:
        folder, row: where it comes from.
        mark: the kind of mark.
        place: names the marked things in a text.
    """
    image, text, id_ = row.text("image"), row.text("text"), row.id("question_id")
    picture = folder.picture(image)
    item = photograph(
        picture,
        id=id_,
        image=image,
        source=image,
        text=text,
        truth=row.truth("label"),
        reference=None,
        group=relation_of(text),
    )
    if not mark:
        return item
    subject, object_ = row.text("subject"), row.text("object")
    if mark == "box":
        boxes = _box(row, "sub_box"), _box(row, "obj_box")
        load, files = partial(draw_boxes, picture, *boxes), (picture,)
    else:
        mask = _mask(folder, id_)
        load, files = partial(draw_masks, picture, mask), (picture, mask)
    return replace(
        item,
        image=f"{image}#{mark}-{id_}",
        text=place(text, subject, object_, MARKS[mark]),
        load=load,
        files=files,
    )


def _mask(folder: Folder, id_: str) -> Path:
    """The published mask of a question; where it should be if it is nowhere."""
    if PurePosixPath(id_).name != id_ or set(id_) & set("\\\0"):
        raise ValueError(
            f"'question_id' is {id_!r}: expected the name of the mask's file; correct the row."
        )
    name = f"instance_mask/{id_}.png"
    paths = folder.find(name)
    return paths[0] if paths else path_below(folder.path, name)


def _box(row: Row, key: str) -> tuple[float, ...]:
    box = row.value.get(key)
    numbers = isinstance(box, list) and all(isinstance(x, int | float) for x in box)
    if numbers and len(box) == 4:
        x0, y0, x1, y1 = (float(x) for x in box)
        if -0.01 <= x0 <= x1 <= 1.01 and -0.01 <= y0 <= y1 <= 1.01:
            return x0, y0, x1, y1
    raise ValueError(
        f"{key!r} is {brief(box)}: expected x0, y0, x1, y1 as shares of width and height, "
        "from 0 to 1; correct the row."
    )


def mark_question(text: str, subject: str, object_: str, mark: str) -> str:
    """The question with the colour of each marked object.

    The published template puts " in red MARK" after every occurrence of the subject, and then " in
    green MARK" after every occurrence of the object, also inside other words. Here both are added at
    the same time, and only after whole words (a plural ending included). If one name contains the
    other, the longer name comes first. If both are the same word, the first occurrence is the subject,
    and the others are the object.

    Args:
        text: the question, such as "Is the man next to the woman?".
        subject: the subject, such as "man"; an article before it is ignored.
        object_: the object, such as "woman".
        mark: "bounding box" or "mask".
    """
    things = {"red": _bare(subject), "green": _bare(object_)}
    same = things["red"] == things["green"]
    longest_first = sorted(things, key=lambda color: -len(things[color]))
    names = "|".join(f"(?P<{color}>{re.escape(things[color])})" for color in longest_first)
    pattern = re.compile(rf"(?<![\w'-])(?:{names})(?:e?s)?(?![\w'-])", re.IGNORECASE)
    occurrences = count()

    def place(match: re.Match[str]) -> str:
        color = ("green" if next(occurrences) else "red") if same else match.lastgroup
        return f"{match[0]} in {color} {mark}"

    return pattern.sub(place, text)


def mark_as_published(text: str, subject: str, object_: str, mark: str) -> str:
    """The question with the wording of the published code, for comparison with published numbers.

    First, " in red MARK" is added after every lower-case occurrence of the subject, also inside other
    words. Then " in green MARK" is added after every occurrence of the object. See
    `instance_qs_construct` in https://github.com/mrwu-mac/R-Bench/blob/main/utils.py.

    Args:
        text, subject, object_, mark: as in `mark_question`.
    """
    for thing, color in ((subject.lower(), "red"), (object_.lower(), "green")):
        text = text.replace(thing, f"{thing} in {color} {mark}")
    return text


def _bare(name: str) -> str:
    return re.sub(r"^(a|an|the)\s+", "", name.strip().lower())


def draw_boxes(image: Path, subject: BoxLike, object_: BoxLike) -> Image.Image:
    """The picture with the subject's box in red and the object's in green, 4 pixels wide.

    Args:
        image: the image file.
        subject: x0, y0, x1, y1 as shares of width and height.
        object_: the same.

    Raises:
        ValueError: an image that is missing or cannot be read.
    """
    picture = load_image(image, upright=False)
    drawing = ImageDraw.Draw(picture)
    for box, color in ((subject, "red"), (object_, "green")):
        pixels = [share * side for share, side in zip(box, picture.size * 2, strict=True)]
        drawing.rectangle(pixels, outline=color, width=4)
    return picture


def draw_masks(image: Path, mask: Path) -> Image.Image:
    """The picture with the subject's pixels tinted red and the object's green.

    Args:
        image: the image file.
        mask: an image with the value 1 for the subject and 2 for the object. It is resized to the
            picture by nearest neighbours.

    Raises:
        ValueError: an image or mask that is missing or cannot be read.
    """
    picture = load_image(image, upright=False)
    values = _mask_values(mask).resize(picture.size, Image.Resampling.NEAREST)
    for value, color in MASK_COLORS.items():
        alpha = values.point([MASK_ALPHA if level == value else 0 for level in range(256)])
        picture.paste(color, mask=alpha)
    return picture


def _mask_values(mask: Path) -> Image.Image:
    """The pixels' values as they are: the colours of a palette do not matter."""
    load_image(mask, upright=False)  # Its errors say what is wrong with the file.
    with Image.open(mask, formats=image_formats()) as opened:
        if opened.mode == "P":
            return Image.frombytes("L", opened.size, opened.tobytes())
        return opened.convert("L")
